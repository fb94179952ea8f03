//! What moving part of a cut takes between two nodes.

use stormo_protocol::codec::payload::Codec;

use crate::plan::coding::Coding;
use crate::plan::price::Infeasible;
use crate::plan::problem::Problem;

/// What moving a tensor takes: of the sender's way out, and then of the receiver; and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::plan) struct Moved {
    pub(in crate::plan) out_ms: f64,
    pub(in crate::plan) in_ms: f64,
    pub(in crate::plan) bytes: u64,
}

/// A way from one node to another for parts of what crosses a cut: as they are, or by the cut's lossless codings, whose
/// bytes and times are in proportion.
#[derive(Debug, Clone, Default)]
pub(in crate::plan) struct Lane {
    /// None where nothing moves.
    link: Option<(f64, f64)>,
    whole_bytes: f64,
    ways: Vec<Way>,
}

/// A coding of the whole cut.
#[derive(Debug, Clone, Copy)]
struct Way {
    codec: Codec,
    bytes: f64,
    encode_ms: f64,
    decode_ms: f64,
}

impl Lane {
    /// # Errors
    /// [`Infeasible::Unreachable`] without a link.
    pub(in crate::plan) fn new(
        problem: &Problem,
        from: usize,
        to: usize,
        cut: u16,
    ) -> Result<Self, Infeasible> {
        if from == to {
            return Ok(Self::default());
        }
        let link = problem.links.get(from, to).ok_or(Infeasible::Unreachable { from, to })?;
        let (sender, receiver) = (&problem.nodes[from], &problem.nodes[to]);
        let whole_bytes = problem.cut_bytes[usize::from(cut)] as f64;
        let all = problem.codings[usize::from(cut)].iter();
        let lossless = all.filter(|coding| coding.loss == 0.0 && whole_bytes > 0.0);
        let way = |coding: &Coding| Way {
            codec: coding.codec,
            bytes: coding.bytes as f64,
            encode_ms: coding.encode_ms * sender.encode_factors.of(coding.codec),
            decode_ms: coding.decode_ms * receiver.decode_factors.of(coding.codec),
        };
        let link = Some((link.latency_ms, link.ms_per_byte));
        Ok(Self { link, whole_bytes, ways: lossless.map(way).collect() })
    }

    /// Moves so many bytes of the cut by what takes least.
    pub(in crate::plan) fn moved(&self, bytes: u64) -> Moved {
        self.coded(bytes).1
    }

    /// The same, and how they are coded.
    pub(in crate::plan) fn coded(&self, bytes: u64) -> (Codec, Moved) {
        let Some((latency_ms, ms_per_byte)) = self.link else { return (Codec::Raw, Moved::default()) };
        let raw = Moved { out_ms: ms_per_byte * bytes as f64, in_ms: latency_ms, bytes };
        self.ways.iter().fold((Codec::Raw, raw), |best, way| {
            let coded_bytes = (way.bytes * bytes as f64 / self.whole_bytes).ceil();
            let share = bytes as f64 / self.whole_bytes;
            let moved = Moved {
                out_ms: way.encode_ms * share + ms_per_byte * coded_bytes,
                in_ms: latency_ms + way.decode_ms * share,
                bytes: coded_bytes as u64,
            };
            let is_less = moved.out_ms + moved.in_ms < best.1.out_ms + best.1.in_ms;
            if is_less { (way.codec, moved) } else { best }
        })
    }

    /// Its latency, and the least that a byte takes of the sender's way out, and in all.
    pub(in crate::plan) fn least(&self) -> (f64, f64, f64) {
        let Some((latency_ms, ms_per_byte)) = self.link else { return (0.0, 0.0, 0.0) };
        let ways = self.ways.iter().map(|way| {
            let out_ms = (way.encode_ms + ms_per_byte * way.bytes) / self.whole_bytes;
            (out_ms, out_ms + way.decode_ms / self.whole_bytes)
        });
        let least =
            ways.fold((ms_per_byte, ms_per_byte), |least, way| (least.0.min(way.0), least.1.min(way.1)));
        (latency_ms, least.0, least.1)
    }
}
