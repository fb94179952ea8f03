//! Data that a model keeps in other files: what it says about where, and how the data comes into the model
//! when the user asks for that. Which files may be read is for the caller to say.

use stormo_protocol::limits::OBJECT_BYTES_MAX;

use super::data;
use super::error::ModelError;
use super::graph::{decode, encode};
use super::messages::{GraphProto, NodeProto, TensorProto};

/// A tensor's data in another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalPart {
    /// The file, as the model names it. Anything may stand here.
    pub location: String,
    /// Where the data begins, bytes.
    pub offset: u64,
    /// How long it is, bytes: what the tensor's shape asks for.
    pub bytes: u64,
}

/// The model with all its data inside. `read` gives the bytes of one part, or says why not; it is asked for
/// no more than a model may hold.
///
/// # Errors
/// When the model is damaged, a part cannot be read, or the whole is then above 2 GiB.
pub fn import_external(
    bytes: &[u8],
    mut read: impl FnMut(&ExternalPart) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, ModelError> {
    let mut model = decode(bytes)?;
    let mut import = Import { read: &mut read, bytes: bytes.len() as u64 };
    import.graph(model.graph.mut_or_insert_default())?;
    for function in &mut model.functions {
        function.node.iter_mut().try_for_each(|node| import.node(node))?;
    }
    encode(&model)
}

struct Import<'a> {
    read: &'a mut dyn FnMut(&ExternalPart) -> Result<Vec<u8>, String>,
    /// What the model takes so far.
    bytes: u64,
}

/// Recursion is bounded: what nests deeper was refused when it was decoded.
impl Import<'_> {
    fn graph(&mut self, graph: &mut GraphProto) -> Result<(), ModelError> {
        graph.initializer.iter_mut().try_for_each(|tensor| self.tensor(tensor))?;
        graph.node.iter_mut().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &mut NodeProto) -> Result<(), ModelError> {
        for attribute in &mut node.attribute {
            let mut tensors = attribute.t.as_mut().into_iter().chain(&mut attribute.tensors);
            tensors.try_for_each(|tensor| self.tensor(tensor))?;
            let mut bodies = attribute.g.as_mut().into_iter().chain(&mut attribute.graphs);
            bodies.try_for_each(|body| self.graph(body))?;
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &mut TensorProto) -> Result<(), ModelError> {
        if !data::is_external(tensor) {
            return Ok(());
        }
        let part = part_of(tensor)?;
        self.bytes = self.bytes.saturating_add(part.bytes);
        if self.bytes > OBJECT_BYTES_MAX {
            return Err(ModelError::TooLarge { bytes: usize::try_from(self.bytes).unwrap_or(usize::MAX) });
        }
        let bad = |what: String| bad(tensor, &part.location, what);
        let bytes = (self.read)(&part).map_err(bad)?;
        if bytes.len() as u64 != part.bytes {
            return Err(bad(format!("{} bytes came instead of {}", bytes.len(), part.bytes)));
        }
        tensor.set_raw_data(bytes);
        tensor.external_data.clear();
        tensor.data_location = None;
        Ok(())
    }
}

fn bad(tensor: &TensorProto, location: &str, what: String) -> ModelError {
    let start = |text: &str| text.chars().take(200).collect();
    ModelError::BadExternal { tensor: start(tensor.name()), location: start(location), what }
}

/// Where a tensor says that its data is; its length must be that of its shape.
fn part_of(tensor: &TensorProto) -> Result<ExternalPart, ModelError> {
    let entry = |key: &str| {
        let found = tensor.external_data.iter().find(|entry| entry.key() == key);
        found.map(|entry| entry.value())
    };
    let location = entry("location").unwrap_or_default();
    let number = |key: &str| {
        let value = entry(key).map(|value| (value, value.parse::<u64>()));
        match value {
            None => Ok(None),
            Some((_, Ok(number))) => Ok(Some(number)),
            Some((value, Err(_))) => {
                Err(bad(tensor, location, format!("its {key} is `{:.40}`, which is no number", value)))
            }
        }
    };
    let bytes = data::raw_length(tensor, tensor.name())?;
    match number("length")? {
        Some(length) if length != bytes => {
            Err(bad(tensor, location, format!("its length is {length} where its shape asks for {bytes}")))
        }
        _ if location.is_empty() => Err(bad(tensor, location, "no file is named".to_owned())),
        _ => {
            Ok(ExternalPart { location: location.to_owned(), offset: number("offset")?.unwrap_or(0), bytes })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::Graph;
    use crate::model::messages::StringStringEntryProto;
    use crate::model::messages::tensor_proto::DataLocation;
    use crate::model::testing::{Builder, chain, weight};

    /// A model whose weight of 3 floats lies elsewhere.
    fn model(entries: &[(&str, &str)]) -> Builder {
        let mut external = weight("w", 3);
        external.float_data.clear();
        external.set_data_location(DataLocation::EXTERNAL);
        for (key, value) in entries {
            let mut entry = StringStringEntryProto::new();
            entry.set_key((*key).to_owned());
            entry.set_value((*value).to_owned());
            external.external_data.push(entry);
        }
        let mut model = chain(1);
        model.graph().initializer.push(external);
        model.node("Add", &["t1", "w"], &["y"]).output("y")
    }

    #[test]
    fn imported_data_is_an_ordinary_weight() {
        let bytes = model(&[("location", "w.bin"), ("offset", "8"), ("length", "12")]).bytes();
        let mut asked = Vec::new();
        let imported = import_external(&bytes, |part| {
            asked.push(part.clone());
            Ok(vec![7; 12])
        });
        assert_eq!(asked, [ExternalPart { location: "w.bin".into(), offset: 8, bytes: 12 }]);
        let graph = Graph::parse(&imported.expect("imported")).expect("a model like others");
        assert_eq!(graph.model.graph.initializer[0].raw_data(), [7; 12]);
        assert!(matches!(Graph::parse(&bytes), Err(ModelError::ExternalData { .. })));
    }

    #[test]
    fn what_does_not_fit_is_told_and_not_read() {
        let place = ("location", "w.bin");
        for entries in [
            &[place, ("length", "16")][..],
            &[place, ("length", "-12")],
            &[place, ("offset", "one")],
            &[("offset", "0")],
        ] {
            let error = import_external(&model(entries).bytes(), |_| unreachable!("nothing is read"));
            assert!(matches!(error, Err(ModelError::BadExternal { .. })), "{entries:?}: {error:?}");
        }
        let short = import_external(&model(&[place]).bytes(), |_| Ok(vec![0; 11]));
        assert!(matches!(short, Err(ModelError::BadExternal { .. })));
        let mut huge = model(&[place]);
        huge.graph().initializer[0].dims = vec![1 << 40];
        let error = import_external(&huge.bytes(), |_| unreachable!("nothing is read"));
        assert!(matches!(error, Err(ModelError::TooLarge { .. })), "{error:?}");
    }
}
