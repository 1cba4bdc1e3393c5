//! Buffers of the executor, allocated once and used by every step.

use crate::kernels::Activations;
use crate::model::hyper::Hyper;
use crate::model::rope::Angles;

use super::Cpu;

/// Each is row-major, with room for at least as many rows as the largest pass
/// so far.
pub(super) struct Scratch {
    rows: usize,
    pub(super) tokens: Vec<u32>,
    pub(super) angles: Angles,
    /// The residual stream: `rows x width`.
    pub(super) x: Vec<f32>,
    pub(super) query: Vec<f32>,
    pub(super) key: Vec<f32>,
    pub(super) value: Vec<f32>,
    /// What attention gives: `rows x query width`.
    pub(super) attended: Vec<f32>,
    /// Between the feed-forward part's matrices: `rows x feed_forward`.
    pub(super) inner: Vec<f32>,
    /// As `inner`, for models that add to it before it is gated.
    pub(super) up: Vec<f32>,
    /// What is added to the residual stream, for models that change it before.
    pub(super) part: Vec<f32>,
    pub(super) acts: Activations,
}

impl Scratch {
    /// Without room for anything.
    pub(super) fn new() -> Self {
        Self {
            rows: 0,
            tokens: Vec::new(),
            angles: Angles::default(),
            x: Vec::new(),
            query: Vec::new(),
            key: Vec::new(),
            value: Vec::new(),
            attended: Vec::new(),
            inner: Vec::new(),
            up: Vec::new(),
            part: Vec::new(),
            acts: Activations::new(1, 1, false),
        }
    }

    /// Makes room for `rows` rows. Powers of two, so that batches of changing
    /// size do not allocate.
    pub(super) fn fit(&mut self, hyper: &Hyper, rows: usize, cpu: &Cpu) {
        if rows <= self.rows {
            return;
        }
        let rows = rows.next_power_of_two();
        let room = |width: usize| vec![0.0; rows * width];
        self.x = room(hyper.width);
        self.query = room(hyper.query_width());
        self.key = room(hyper.kv_width());
        self.value = room(hyper.kv_width());
        self.attended = room(hyper.query_width());
        self.inner = room(hyper.feed_forward);
        let widest = hyper.width.max(hyper.query_width()).max(hyper.feed_forward);
        self.acts = Activations::new(rows, widest, cpu.floats);
        self.rows = rows;
    }
}
