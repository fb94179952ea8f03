//! An `ExportTraceServiceRequest` as OTLP writes it in JSON: ids in hexadecimal, 64-bit numbers as texts, enumerations
//! as numbers. Source: opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding", and opentelemetry-proto 1.x.

use serde::{Serialize, Serializer};

use super::Exporter;
use super::spans::{Kind, Span, Value};

/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<SpanBody<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanBody<'a> {
    #[serde(serialize_with = "hex")]
    trace_id: &'a [u8],
    #[serde(serialize_with = "hex")]
    span_id: &'a [u8],
    #[serde(serialize_with = "hex", skip_serializing_if = "<[u8]>::is_empty")]
    parent_span_id: &'a [u8],
    name: &'a str,
    kind: u8,
    #[serde(serialize_with = "text")]
    start_time_unix_nano: u64,
    #[serde(serialize_with = "text")]
    end_time_unix_nano: u64,
    attributes: Vec<Attribute<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
}

#[derive(Serialize)]
struct Status<'a> {
    code: u8,
    message: &'a str,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: AnyValue<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue<'a> {
    StringValue(&'a str),
    #[serde(serialize_with = "text")]
    IntValue(u64),
}

/// The body of a post.
pub(super) fn body(exporter: &Exporter, spans: &[Span]) -> serde_json::Result<Vec<u8>> {
    let told = |(key, value)| Attribute { key, value: AnyValue::StringValue(value) };
    let resource = [
        ("service.name", "stormo"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", exporter.instance.as_str()),
        ("host.name", exporter.label.as_str()),
    ];
    serde_json::to_vec(&Request {
        resource_spans: [ResourceSpans {
            resource: Resource { attributes: resource.map(told).into() },
            scope_spans: [ScopeSpans {
                scope: Scope { name: "stormo", version: env!("CARGO_PKG_VERSION") },
                spans: spans.iter().map(span).collect(),
            }],
        }],
    })
}

fn span(span: &Span) -> SpanBody<'_> {
    SpanBody {
        trace_id: &span.trace,
        span_id: &span.id,
        parent_span_id: span.parent.as_ref().map_or(&[], |parent| &parent[..]),
        name: &span.name,
        kind: match span.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
        },
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes: span.attributes.iter().map(attribute_of).collect(),
        status: span.error.as_deref().map(|message| Status { code: ERROR, message }),
    }
}

fn attribute_of<'a>((key, value): &'a (&'static str, Value)) -> Attribute<'a> {
    let value = match value {
        Value::Text(text) => AnyValue::StringValue(text),
        Value::Number(number) => AnyValue::IntValue(*number),
    };
    Attribute { key, value }
}

fn hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Hex(bytes))
}

struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

fn text<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_json_is_that_of_the_specification() {
        let exporter = Exporter {
            endpoint: "http://127.0.0.1:4318".parse().unwrap(),
            instance: "12D3".into(),
            label: "camera".into(),
        };
        let span = Span {
            trace: [0x5b; 16],
            id: [0xee; 8],
            parent: None,
            name: "infer digits".into(),
            kind: Kind::Server,
            start_ns: 1_544_712_660_000_000_000,
            end_ns: 1_544_712_661_000_000_000,
            attributes: vec![
                ("stormo.model", Value::Text("digits".into())),
                ("stormo.attempts", Value::Number(2)),
            ],
            error: Some("no".into()),
        };
        let child =
            Span { parent: Some([0xee; 8]), id: [1; 8], kind: Kind::Internal, error: None, ..span.clone() };
        let body: serde_json::Value =
            serde_json::from_slice(&body(&exporter, &[span, child]).unwrap()).unwrap();
        let of = |text: &str| json!({ "stringValue": text });
        assert_eq!(
            body["resourceSpans"][0]["resource"]["attributes"][2],
            json!({ "key": "service.instance.id", "value": of("12D3") })
        );
        let spans = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
        assert_eq!(
            spans[0],
            json!({
                "traceId": "5b".repeat(16),
                "spanId": "ee".repeat(8),
                "name": "infer digits",
                "kind": 2,
                "startTimeUnixNano": "1544712660000000000",
                "endTimeUnixNano": "1544712661000000000",
                "attributes": [
                    { "key": "stormo.model", "value": of("digits") },
                    { "key": "stormo.attempts", "value": { "intValue": "2" } },
                ],
                "status": { "code": 2, "message": "no" },
            })
        );
        assert_eq!(spans[1]["parentSpanId"], "ee".repeat(8));
        assert_eq!((&spans[1]["kind"], spans[1].get("status")), (&json!(1), None));
    }
}
