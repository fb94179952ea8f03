//! Which networks are asked, and with what.

use std::path::PathBuf;

use serde::Serialize;
use stormo_testnet::{detector, surroundings};

/// A network, and what it is for.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) model: PathBuf,
    /// Its card, a folder of photos it is for, and one of them to ask with.
    pub(super) photos: Option<Photos>,
    /// Real inputs; without them, a pattern.
    pub(super) golden: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub(super) struct Photos {
    pub(super) card: PathBuf,
    pub(super) samples: PathBuf,
    pub(super) photo: PathBuf,
}

/// In which form it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Input {
    /// Its tensors, nothing rounded.
    Floats,
    /// The encoded photo; tensors may be rounded and an int8 variant used, within an accuracy.
    Photo,
}

impl Case {
    pub(super) fn inputs(&self) -> Vec<Input> {
        match self.photos {
            Some(_) => vec![Input::Floats, Input::Photo],
            None => vec![Input::Floats],
        }
    }
}

/// What is in the tree, what lies around it, and what of that is missing.
pub(super) fn all() -> (Vec<Case>, Vec<String>) {
    let mut left_out = Vec::new();
    let mut cases = Vec::new();
    match surroundings::shared_models() {
        Some(folder) => cases.push(Case {
            name: "nanodet".to_owned(),
            model: folder.join("nanodet_m_416.onnx"),
            photos: Some(Photos {
                card: stormo_testnet::binary::workspace_root()
                    .join("testnet/models/cards/nanodet_m_416.toml"),
                samples: folder.join("photos"),
                photo: folder.join("photos/bus.jpg"),
            }),
            golden: Some(folder.join("golden/nanodet_m_416.npz")),
        }),
        None => left_out.push(format!(
            "NanoDet: no shared models; set {} to the folder that holds `models`",
            surroundings::SHARED
        )),
    }
    match surroundings::light_models() {
        Some(folder) => cases.push(Case {
            name: "resnet50".to_owned(),
            model: folder.join("light_resnet50.onnx"),
            photos: None,
            golden: None,
        }),
        None => left_out.push(format!(
            "ResNet-50: no Python with `onnx` and its light models; `pip install onnx`, or set {} to the Python of \
             an environment that has it",
            surroundings::PYTHON
        )),
    }
    cases.push(Case {
        name: "detector".to_owned(),
        model: detector::model("s"),
        photos: Some(Photos {
            card: detector::card(),
            samples: detector::folder(),
            photo: detector::folder().join("held-out-01-6-digits.jpg"),
        }),
        golden: None,
    });
    (cases, left_out)
}
