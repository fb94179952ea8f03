//! What a collector of OpenTelemetry traces is told of requests, and what a bad one costs: nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stormo::serve::json::PlanView;
use stormo_protocol::ids::PlanId;
use stormo_testnet::collector::{Collector, Manner};
use stormo_testnet::mesh::Mesh;
use stormo_testnet::oip::InferRequest;
use stormo_testnet::trial::{self, SOON, asker, edge};
use stormo_testnet::{digits, raw_http, surroundings, wait};

const CALLER: [&str; 2] = ["4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"];
const GRPC_CALLER: [&str; 2] = ["5bf92f3577b34da6a3ce929d0e0e4736", "10f067aa0ba902b7"];

/// A span as it was posted.
#[derive(Debug, Clone)]
struct Span {
    trace: String,
    id: String,
    parent: Option<String>,
    name: String,
    kind: u64,
    start_ns: u64,
    end_ns: u64,
    attributes: BTreeMap<String, String>,
    error: Option<String>,
}

impl Span {
    fn of(span: &Value) -> Option<Self> {
        let text = |key: &str| span[key].as_str().map(str::to_owned);
        let attribute = |attribute: &Value| {
            let value = &attribute["value"];
            let value = value["stringValue"].as_str().or_else(|| value["intValue"].as_str())?;
            Some((attribute["key"].as_str()?.to_owned(), value.to_owned()))
        };
        let failed = || span["status"]["message"].as_str().map(str::to_owned);
        Some(Self {
            trace: text("traceId")?,
            id: text("spanId")?,
            parent: text("parentSpanId"),
            name: text("name")?,
            kind: span["kind"].as_u64()?,
            start_ns: text("startTimeUnixNano")?.parse().ok()?,
            end_ns: text("endTimeUnixNano")?.parse().ok()?,
            attributes: span["attributes"].as_array()?.iter().map(attribute).collect::<Option<_>>()?,
            error: (span["status"]["code"] == 2).then(failed).flatten(),
        })
    }

    fn is(&self, key: &str, value: impl ToString) -> Result<()> {
        let found = self.attributes.get(key);
        ensure!(found == Some(&value.to_string()), "{}: {key} is {found:?}", self.name);
        Ok(())
    }
}

/// The spans of a trace, once they have come; they come in one post.
fn trace(collector: &Collector, id: &str) -> Result<Vec<Span>> {
    let found = wait::until(&format!("the trace {id}"), SOON, || {
        let mut seen = BTreeSet::new();
        for post in collector.posts() {
            let spans = &post.body["resourceSpans"][0]["scopeSpans"][0]["spans"];
            let spans = spans.as_array().map(|spans| spans.iter().map(Span::of).collect());
            let Some(Some(spans)) = spans else { return Ok(Err(format!("{}", post.body))) };
            let spans: Vec<Span> = spans;
            seen.extend(spans.iter().map(|span| span.trace.clone()));
            let of_it: Vec<Span> = spans.into_iter().filter(|span| span.trace == id).collect();
            if !of_it.is_empty() {
                return Ok(Ok(of_it));
            }
        }
        Err(format!("{seen:?}"))
    })?;
    found.map_err(|body| anyhow::anyhow!("a post is not as it should be: {body}"))
}

/// The root; each other span has a parent that was told as well, and lies within it.
fn check_tree(spans: &[Span]) -> Result<&Span> {
    let ids: BTreeSet<&String> = spans.iter().map(|span| &span.id).collect();
    ensure!(ids.len() == spans.len(), "an id is there twice: {spans:?}");
    let is_hex =
        |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut roots = Vec::new();
    for span in spans {
        ensure!(is_hex(&span.trace, 32) && is_hex(&span.id, 16) && span.start_ns <= span.end_ns, "{span:?}");
        let parent = span.parent.as_ref().and_then(|id| spans.iter().find(|other| other.id == *id));
        let Some(parent) = parent else {
            roots.push(span);
            continue;
        };
        ensure!(span.kind == 1, "{span:?}");
        ensure!(parent.start_ns <= span.start_ns && span.end_ns <= parent.end_ns, "{span:?} in {parent:?}");
    }
    ensure!(roots.len() == 1 && roots[0].kind == 2, "{roots:?}");
    Ok(roots[0])
}

fn children<'a>(spans: &'a [Span], parent: &'a Span) -> impl Iterator<Item = &'a Span> {
    spans.iter().filter(|span| span.parent.as_ref() == Some(&parent.id))
}

fn child<'a>(spans: &'a [Span], parent: &'a Span, name: &str) -> Result<&'a Span> {
    children(spans, parent).find(|span| span.name == name).with_context(|| format!("{name} in {spans:?}"))
}

#[test]
fn requests_through_three_nodes_are_told_as_trees_of_spans() -> Result<()> {
    let collector = Collector::start(Manner::Takes)?;
    trial::run(&[edge("first"), edge("second"), edge("third")], |mesh| {
        let options = ["--otlp", &collector.url, "--grpc", "127.0.0.1:0"];
        trial::add_with(mesh, &asker("origin"), &options)?;
        mesh.wait_for_nodes(4, SOON)?;
        let plan = deploy_in_three(mesh)?;
        let client = mesh.node("origin").client.clone();
        let request = digits::load()?[0].request(&trial::digits_input(&client)?).by_plan(plan.id);
        let answer = client.infer("digits", &request)?;
        let spans = trace(&collector, &answer.parameters.request_id)?;
        check_answered(mesh, &plan, &spans)?;
        ensure!(check_tree(&spans)?.parent.is_none(), "nobody called it from a trace");
        check_resource(mesh, &collector)?;
        callers_are_parents(mesh, &collector, &request)?;
        a_failed_request_says_why(mesh, &collector, &request)
    })
}

fn deploy_in_three(mesh: &Mesh) -> Result<PlanView> {
    trial::deploy(mesh, "origin", "digits", &digits::model(), &["--replicas", "1"])?;
    let models = mesh.node("origin").client.models()?.models;
    let blocks = models.first().context("it is listed")?.blocks.len();
    let (one, two) = (blocks / 3, 2 * blocks / 3);
    let place = |(node, first, end): (&str, usize, usize)| {
        format!("[[place]]\nnode = \"{node}\"\nblocks = [{first}, {end}]\n")
    };
    let file = mesh.folder().join("placement.toml");
    fs::write(&file, [("first", 0, one), ("second", one, two), ("third", two, blocks)].map(place).concat())?;
    trial::deploy(mesh, "origin", "digits", &digits::model(), &["--placement", &file.to_string_lossy()])?;
    trial::loaded_plan(&mesh.node("origin").client, "digits", "chain-3")
}

fn check_answered(mesh: &Mesh, plan: &PlanView, spans: &[Span]) -> Result<()> {
    let root = check_tree(spans)?;
    ensure!(root.name == "infer digits" && root.error.is_none(), "{root:?}");
    root.is("stormo.model", "digits")?;
    root.is("stormo.plan", plan.id)?;
    root.is("stormo.variant", &plan.variant)?;
    child(spans, root, "plan")?;
    let attempt = child(spans, root, "attempt 1")?;
    let view =
        mesh.node("origin").client.request(root.attributes.get("stormo.request").context("its id")?)?;
    let mut before_ns = attempt.start_ns;
    for (index, (stage, measured)) in plan.stages.iter().zip(&view.stages).enumerate() {
        let span = child(spans, attempt, &format!("stage {index}"))?;
        span.is("stormo.node", stage.node)?;
        span.is("stormo.node.label", &stage.label)?;
        span.is("stormo.blocks", format!("{}-{}", stage.blocks[0], stage.blocks[1] - 1))?;
        let send = child(spans, span, "send")?;
        send.is("stormo.codec", "raw")?;
        send.is("stormo.bytes", plan.edges[index].bytes)?;
        let run = child(spans, span, "run")?;
        run.is("stormo.measured_us", (measured.run_ms * 1000.0).round())?;
        ensure!(span.start_ns >= before_ns, "stage {index} begins before the one before it ends");
        before_ns = span.end_ns;
        let mut at_ns = span.start_ns;
        for part in children(spans, span) {
            ensure!(part.start_ns == at_ns, "{part:?} does not follow what was before");
            at_ns = part.end_ns;
        }
        ensure!(at_ns == span.end_ns, "{span:?} is not all told of");
    }
    let result = child(spans, attempt, "result")?;
    child(spans, result, "send")?.is("stormo.bytes", 10 * 4)?;
    ensure!(result.start_ns >= before_ns, "the result is sent when the last stage has it");
    Ok(())
}

fn check_resource(mesh: &Mesh, collector: &Collector) -> Result<()> {
    let posts = collector.posts();
    let post = posts.first().context("a post")?;
    ensure!(post.head == ["/v1/traces", "application/json"], "{:?}", post.head);
    let attributes = &post.body["resourceSpans"][0]["resource"]["attributes"];
    let attributes = attributes.as_array().context("attributes")?;
    let id = mesh.node("origin").id().to_string();
    for (key, value) in [("service.name", "stormo"), ("service.instance.id", &id), ("host.name", "origin")] {
        let wanted = json!({ "key": key, "value": { "stringValue": value } });
        ensure!(attributes.contains(&wanted), "{key}: {attributes:?}");
    }
    Ok(())
}

fn callers_are_parents(mesh: &Mesh, collector: &Collector, request: &InferRequest) -> Result<()> {
    let base = mesh.node("origin").client.base();
    let body = serde_json::to_vec(request)?;
    let call = |parent: &str| -> Result<Value> {
        let headers = [("content-type", "application/json"), ("traceparent", parent)];
        let post = raw_http::post("/v2/models/digits/infer", &headers, body.len(), &body);
        let answer = raw_http::exchange(base, &post)?;
        ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
        Ok(serde_json::from_slice(&answer.body)?)
    };
    let [id, span] = CALLER;
    // What its caller does not record is not told of; it would have come first.
    let unrecorded = "6bf92f3577b34da6a3ce929d0e0e4736";
    call(&format!("00-{unrecorded}-{span}-00"))?;
    call(&format!("00-{id}-{span}-01"))?;
    let spans = trace(collector, id)?;
    ensure!(check_tree(&spans)?.parent.as_deref() == Some(span), "{spans:?}");
    let told = collector.posts().iter().any(|post| post.body.to_string().contains(unrecorded));
    ensure!(!told, "what its caller does not record is told");
    // A header that is none is as good as none.
    let answer = call("00-nonsense")?;
    let own = answer["parameters"]["request_id"].as_str().context("an id")?.to_owned();
    ensure!(check_tree(&trace(collector, &own)?)?.parent.is_none(), "a malformed parent counts");
    grpc_callers_are_parents(mesh, collector, request)
}

fn grpc_callers_are_parents(mesh: &Mesh, collector: &Collector, request: &InferRequest) -> Result<()> {
    let Some(python) = surroundings::python_with("tritonclient.grpc") else {
        trial::skipped("traceparent over gRPC: no Python with tritonclient");
        return Ok(());
    };
    let script = "import sys, numpy, tritonclient.grpc as triton\n\
                  data = triton.InferInput(sys.argv[2], [int(dim) for dim in sys.argv[3].split(',')], 'FP32')\n\
                  data.set_data_from_numpy(numpy.zeros(data.shape(), dtype=numpy.float32))\n\
                  client = triton.InferenceServerClient(sys.argv[1])\n\
                  client.infer('digits', [data], headers={'traceparent': sys.argv[4]})\n";
    let grpc = mesh.node("origin").ready.grpc.clone().context("it serves gRPC")?;
    let input = &request.inputs[0];
    let shape: Vec<String> = input.shape.iter().map(ToString::to_string).collect();
    let [id, span] = GRPC_CALLER;
    let parent = format!("00-{id}-{span}-01");
    let ran = Command::new(&python)
        .args(["-c", script, &grpc, &input.name, &shape.join(","), &parent])
        .output()
        .with_context(|| format!("{}", python.display()))?;
    ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    ensure!(check_tree(&trace(collector, id)?)?.parent.as_deref() == Some(span), "over gRPC");
    Ok(())
}

fn a_failed_request_says_why(mesh: &mut Mesh, collector: &Collector, request: &InferRequest) -> Result<()> {
    let known = traces_of(collector);
    mesh.freeze("second")?;
    let mut request = request.clone();
    request.parameters.timeout_ms = Some(300);
    let client = mesh.node("origin").client.clone();
    let refused = client.infer("digits", &request).err().map(|error| error.to_string());
    mesh.thaw("second")?;
    let refused = refused.context("a frozen host answers nothing")?;
    let failed = wait::until("the failed request to be told of", SOON, || {
        let new = traces_of(collector).difference(&known).next().cloned();
        new.ok_or_else(|| "it is not".to_owned())
    })?;
    let spans = trace(collector, &failed)?;
    let root = check_tree(&spans)?;
    let error = root.error.clone().with_context(|| format!("{root:?} has not failed"))?;
    ensure!(refused.contains(&error), "{error} was told, {refused} answered");
    let attempt = child(&spans, root, "attempt 1")?;
    ensure!(attempt.error.is_some() && children(&spans, attempt).next().is_none(), "{attempt:?}");
    Ok(())
}

fn traces_of(collector: &Collector) -> BTreeSet<String> {
    let posts = collector.posts();
    let spans = posts.iter().filter_map(|post| {
        post.body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().map(|spans| spans.iter())
    });
    spans.flatten().filter_map(|span| span["traceId"].as_str().map(str::to_owned)).collect()
}

/// Requests to a node whose collector is bad.
const ASKED: usize = 200;

#[test]
fn collectors_that_hang_fail_or_are_gone_cost_a_warning() -> Result<()> {
    let [hanging, failing] = [Collector::start(Manner::Hangs)?, Collector::start(Manner::Answers(500))?];
    // Its port is free again, and nobody listens there.
    let gone = format!("http://{}", TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?);
    trial::run(&[edge("good")], |mesh| {
        trial::deploy(mesh, "good", "digits", &digits::model(), &["--replicas", "1"])?;
        let nodes = [("hanging", &hanging.url), ("failing", &failing.url), ("gone", &gone)];
        for (label, url) in nodes {
            trial::add_with(mesh, &edge(label), &["--otlp", url])?;
        }
        mesh.wait_for_nodes(1 + nodes.len(), SOON)?;
        let plan_of = |label: &str| -> Result<PlanId> {
            Ok(wait::until("a plan", SOON, || {
                let plans = mesh.node(label).client.plans("digits").map_err(|error| error.to_string())?.plans;
                let warm = plans.into_iter().find(|plan| plan.cold_ms == 0.0);
                warm.map(|plan| plan.id).ok_or_else(|| "none is warm".to_owned())
            })?)
        };
        for (label, _) in nodes {
            let plan = plan_of(label)?;
            let client = mesh.node(label).client.clone();
            let request = digits::load()?[0].request(&trial::digits_input(&client)?).by_plan(plan);
            for asked in 0..ASKED {
                client.infer("digits", &request).with_context(|| format!("{label}, request {asked}"))?;
            }
        }
        for (label, _) in nodes {
            wait::until(&format!("{label} to warn"), SOON, || {
                let log = mesh.node(label).logged();
                let warns = log.contains("traces of requests were dropped") && log.contains("--otlp");
                if warns { Ok(()) } else { Err(log) }
            })?;
            trial::check_reads(&mesh.node(label).client)?;
        }
        let connections = hanging.connections();
        ensure!(connections <= 4, "{connections} connections to a collector that hangs");
        // Those who still wait for their collectors leave all the same when they are told to, as the trial checks.
        Ok(())
    })
}
