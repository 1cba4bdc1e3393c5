//! Rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>).

use super::hyper::Hyper;
use super::loader::{Loader, Make};
use crate::gguf::LoadError;

/// The rotations of a model: its own, and that of its windowed layers.
pub(super) struct Ropes {
    global: Frequencies,
    windowed: Option<Frequencies>,
    magnitude: f32,
}

/// Angle per position, for each pair of numbers.
struct Frequencies(Vec<f32>);

/// Cosines and sines of a step's positions, for all layers. Computed once per
/// step, into memory that is used again.
#[derive(Default)]
pub(super) struct Angles {
    global: Table,
    windowed: Table,
}

/// `positions x pairs` of each.
#[derive(Default)]
struct Table {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
}

impl Ropes {
    pub(super) fn load<M: Make>(
        loader: &mut Loader<'_, M>,
        hyper: &Hyper,
    ) -> Result<Self, LoadError> {
        let rope = &hyper.rope;
        let pairs = rope.dims / 2;
        let factors = if hyper.family.long_rope {
            // Both are read, so that both are checked.
            let long = loader.opt_vector("rope_factors_long.weight", pairs)?;
            let short = loader.opt_vector("rope_factors_short.weight", pairs)?;
            if rope.long { long } else { short }
        } else {
            loader.opt_vector("rope_freqs.weight", pairs)?
        };
        if let Some(factors) = &factors
            && !factors
                .iter()
                .all(|factor| factor.is_finite() && *factor > 0.0)
        {
            return Err(LoadError::damaged("its rotary factors are not all above 0"));
        }
        let windowed = hyper.windowed.contains(&true);
        Ok(Self {
            global: Frequencies::new(rope.theta, pairs, rope.position_scale, factors.as_deref()),
            // Linear scaling extends what sees everything; windows stay as they were.
            windowed: windowed.then(|| Frequencies::new(rope.window_theta, pairs, 1.0, None)),
            magnitude: rope.magnitude,
        })
    }

    /// Fills `angles` for the given positions, a row for each.
    pub(super) fn fill(&self, positions: impl Iterator<Item = usize> + Clone, angles: &mut Angles) {
        self.global
            .fill(positions.clone(), self.magnitude, &mut angles.global);
        if let Some(windowed) = &self.windowed {
            windowed.fill(positions, self.magnitude, &mut angles.windowed);
        }
    }
}

impl Angles {
    /// Cosines and sines of all rows, for the layers of one kind.
    pub(super) fn tables(&self, windowed: bool) -> (&[f32], &[f32]) {
        let table = match windowed && self.windowed.pairs > 0 {
            true => &self.windowed,
            false => &self.global,
        };
        (&table.cos, &table.sin)
    }

    /// Cosines and sines of one row's position, for the layers of one kind.
    pub(super) fn row(&self, row: usize, windowed: bool) -> (&[f32], &[f32]) {
        let table = match windowed && self.windowed.pairs > 0 {
            true => &self.windowed,
            false => &self.global,
        };
        let at = row * table.pairs..(row + 1) * table.pairs;
        (&table.cos[at.clone()], &table.sin[at])
    }
}

impl Frequencies {
    fn new(theta: f32, pairs: usize, scale: f32, factors: Option<&[f32]>) -> Self {
        let frequency = |pair: usize| {
            let power = f64::from(theta).powf(-(pair as f64) / pairs as f64);
            let factor = factors.map_or(1.0, |factors| f64::from(factors[pair]));
            (power * f64::from(scale) / factor) as f32
        };
        Self((0..pairs).map(frequency).collect())
    }

    fn fill(&self, positions: impl Iterator<Item = usize>, magnitude: f32, table: &mut Table) {
        table.cos.clear();
        table.sin.clear();
        table.pairs = self.0.len();
        for position in positions {
            for frequency in &self.0 {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                table.cos.push(cos * magnitude);
                table.sin.push(sin * magnitude);
            }
        }
    }
}
