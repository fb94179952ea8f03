//! A cut, and what was measured of sending it coded. How the figures are measured is not said here.

use serde::{Deserialize, Serialize};

use super::BadManifest;
use crate::codec::payload::Codec;

/// All agreement lost, in millionths.
const LOSS_PPM_MAX: u32 = 1_000_000;

/// The tensors at a frontier between blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cut {
    /// What crosses: all that was computed (or given) before it and is read after it. Indices into
    /// [`Manifest::tensors`](super::Manifest::tensors), ascending.
    pub tensors: Vec<u32>,
    /// Outputs of the model that are there already and that nothing reads any more: they need not cross,
    /// but leave for the origin from the stage that made them. Likewise indices, ascending.
    pub settled: Vec<u32>,
    /// Codecs that make fewer bytes of what crosses, ascending; empty where none does or none was tried.
    pub codecs: Vec<CodecFigures>,
}

/// What a codec makes of a cut's tensors, all together, as measured where the variant was divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecFigures {
    /// The codec; a tensor that it does not shorten goes by a simpler one.
    pub codec: Codec,
    /// Bytes on the wire.
    pub coded_bytes: u64,
    /// One core of the reference node encodes so long, microseconds.
    pub encode_us: u32,
    /// And decodes so long, microseconds.
    pub decode_us: u32,
    /// Share of agreement that answers lose by it, millionths; zero if it is lossless. Absent where it was
    /// not measured: then no plan may use it.
    pub loss_ppm: Option<u32>,
}

impl CodecFigures {
    /// Share of agreement that answers lose by it, 0 to 1; `None` if that is not known.
    pub fn loss(&self) -> Option<f64> {
        self.loss_ppm.map(|loss_ppm| f64::from(loss_ppm) / f64::from(LOSS_PPM_MAX))
    }

    /// A share, 0 to 1, as manifests write it: rounded up, so that none is written as nothing.
    pub fn ppm(share: f64) -> u32 {
        (share * f64::from(LOSS_PPM_MAX)).ceil().clamp(0.0, f64::from(LOSS_PPM_MAX)) as u32
    }
}

impl Cut {
    /// A cut that all its tensors cross.
    pub fn crossed_by(tensors: Vec<u32>) -> Self {
        Self { tensors, ..Self::default() }
    }

    /// All that is there: what crosses, and what is settled.
    pub fn there(&self) -> impl Iterator<Item = u32> {
        self.tensors.iter().chain(&self.settled).copied()
    }

    /// The figures of a codec; `None` if it does not pay here, or was not measured.
    pub fn figures(&self, codec: Codec) -> Option<&CodecFigures> {
        self.codecs.iter().find(|figures| figures.codec == codec)
    }

    /// Checks the figures; `raw_bytes` is what crosses uncoded.
    pub(super) fn check_codecs(&self, raw_bytes: u64) -> Result<(), BadManifest> {
        let codecs = || std::iter::once(Codec::Raw).chain(self.codecs.iter().map(|figures| figures.codec));
        if !codecs().is_sorted_by(|one, next| one < next) {
            return Err(BadManifest::Count("a cut's codecs must ascend, and none is raw"));
        }
        let is_sound = |figures: &CodecFigures| {
            figures.coded_bytes < raw_bytes
                && match figures.loss_ppm {
                    Some(loss_ppm) if figures.codec.is_lossless() => loss_ppm == 0,
                    Some(loss_ppm) => loss_ppm <= LOSS_PPM_MAX,
                    None => !figures.codec.is_lossless(),
                }
        };
        if self.codecs.iter().all(is_sound) {
            Ok(())
        } else {
            Err(BadManifest::Count("a cut's codec saves nothing, or its loss is none of 0 to 1"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(codec: Codec, loss_ppm: Option<u32>) -> CodecFigures {
        CodecFigures { codec, coded_bytes: 50, encode_us: 1, decode_us: 2, loss_ppm }
    }

    fn check(codecs: &[CodecFigures]) -> bool {
        Cut { codecs: codecs.to_vec(), ..Cut::crossed_by(vec![0]) }.check_codecs(100).is_ok()
    }

    #[test]
    fn figures_that_make_no_sense_are_refused() {
        let lossless = figures(Codec::ShuffleLz4, Some(0));
        assert!(check(&[lossless, figures(Codec::F16, None), figures(Codec::Int8, Some(1_000_000))]));
        assert!(!check(&[figures(Codec::Raw, Some(0))]));
        assert!(!check(&[lossless, lossless]));
        assert!(!check(&[figures(Codec::Int8, None), figures(Codec::F16, None)]));
        assert!(!check(&[figures(Codec::ShuffleLz4, Some(1))]));
        assert!(!check(&[figures(Codec::ShuffleLz4, None)]));
        assert!(!check(&[figures(Codec::Int8, Some(1_000_001))]));
        assert!(!check(&[CodecFigures { coded_bytes: 100, ..lossless }]));
    }

    #[test]
    fn losses_are_rounded_up() {
        assert_eq!([0.0, 1e-9, 0.5, 1.0, 7.0].map(CodecFigures::ppm), [0, 1, 500_000, 1_000_000, 1_000_000]);
        assert_eq!(figures(Codec::Int8, Some(250_000)).loss(), Some(0.25));
    }
}
