//! An answer's body: what of it the history keeps.

use serde::Deserialize;
use stormo_protocol::tensor::DType;

use crate::history::Output;

/// Of an answer's JSON, what is looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    #[serde(default)]
    pub(super) id: Option<String>,
    pub(super) parameters: Parameters,
    outputs: Vec<OutputHead>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    pub(super) plan_id: String,
    pub(super) variant: String,
    pub(super) nodes: String,
    pub(super) codecs: String,
    pub(super) attempts: u16,
    pub(super) failovers: u16,
    pub(super) late: bool,
}

#[derive(Debug, Deserialize)]
struct OutputHead {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Debug, Default, Deserialize)]
struct OutputParameters {
    binary_data_size: Option<usize>,
}

/// The JSON of an answer, and its binary tensors.
pub(super) fn read(body: &[u8], json_bytes: Option<usize>) -> Result<(Head, &[u8]), String> {
    let (json, tensors) = body
        .split_at_checked(json_bytes.unwrap_or(body.len()))
        .ok_or("the JSON of the answer is longer than the answer")?;
    let head: Head = serde_json::from_slice(json).map_err(|error| format!("the answer: {error}"))?;
    Ok((head, tensors))
}

/// What makes outputs the same: their names, shapes and bytes.
pub(super) fn key(head: &Head, tensors: &[u8]) -> Box<[u8]> {
    let mut key = Vec::with_capacity(tensors.len() + 64);
    for output in &head.outputs {
        key.extend_from_slice(output.name.as_bytes());
        key.push(0);
        key.extend_from_slice(output.datatype.as_bytes());
        output.shape.iter().for_each(|dim| key.extend_from_slice(&dim.to_le_bytes()));
        key.extend_from_slice(&[0xff; 8]);
    }
    key.extend_from_slice(tensors);
    key.into()
}

/// The outputs themselves.
pub(super) fn outputs(head: &Head, mut tensors: &[u8]) -> Result<Vec<Output>, String> {
    let mut outputs = Vec::with_capacity(head.outputs.len());
    for output in &head.outputs {
        let name = &output.name;
        let dtype = DType::from_oip_name(&output.datatype)
            .ok_or_else(|| format!("output `{name}` is {}, which is no type", output.datatype))?;
        let size =
            output.parameters.binary_data_size.ok_or_else(|| format!("output `{name}` is not binary"))?;
        let (own, rest) =
            tensors.split_at_checked(size).ok_or_else(|| format!("output `{name}` is cut short"))?;
        tensors = rest;
        outputs.push(Output::from_bytes(name, dtype, &output.shape, own)?);
    }
    if tensors.is_empty() { Ok(outputs) } else { Err("bytes follow the last output".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Values;

    const HEAD: &str = r#"{"model_name":"m","id":"7-1","parameters":{"plan_id":"p","request_id":"r","attempts":2,"failovers":1,
        "variant":"base","nodes":"a,b","codecs":"raw,raw,raw","latency_ms":1.5,"late":false},
        "outputs":[{"name":"y","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}"#;

    fn body(values: &[f32]) -> Vec<u8> {
        let tensors = values.iter().flat_map(|value| value.to_le_bytes());
        HEAD.bytes().chain(tensors).collect()
    }

    #[test]
    fn an_answer_is_read() {
        let body = body(&[0.5, -2.0]);
        let (head, tensors) = read(&body, Some(HEAD.len())).unwrap();
        assert_eq!(
            (head.id.as_deref(), head.parameters.attempts, head.parameters.failovers),
            (Some("7-1"), 2, 1)
        );
        let outputs = outputs(&head, tensors).unwrap();
        let values = Values::Floats(vec![0.5, -2.0]);
        assert_eq!(outputs, [Output { name: "y".into(), dtype: DType::F32, shape: vec![1, 2], values }]);
    }

    #[test]
    fn damaged_answers_are_told() {
        let short = body(&[0.5]);
        let (head, tensors) = read(&short, Some(HEAD.len())).unwrap();
        assert!(outputs(&head, tensors).unwrap_err().contains("cut short"));
        let long = body(&[0.5, 1.0, 2.0]);
        let (head, tensors) = read(&long, Some(HEAD.len())).unwrap();
        assert!(outputs(&head, tensors).unwrap_err().contains("follow"));
        assert!(read(&short, Some(10_000)).is_err());
        assert!(read(b"{}", None).is_err());
    }
}
