//! Rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>).

use super::family::RopeStyle;
use super::hyper::Hyper;
use super::weights::Loader;
use crate::gguf::LoadError;

/// The rotations of a model: its own, and that of its windowed layers.
pub(super) struct Ropes {
    global: Frequencies,
    windowed: Option<Frequencies>,
    style: RopeStyle,
    /// A head's numbers from here on are not rotated.
    dims: usize,
    magnitude: f32,
}

/// Angle per position, for each pair of numbers.
struct Frequencies(Vec<f32>);

/// Cosines and sines of a run of positions: `positions x pairs`, cosine first.
pub(super) struct Angles(Vec<[f32; 2]>);

impl Ropes {
    pub(super) fn load(loader: &mut Loader<'_>, hyper: &Hyper) -> Result<Self, LoadError> {
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
            style: hyper.family.rope,
            dims: rope.dims,
            magnitude: rope.magnitude,
        })
    }

    /// The angles of `count` positions from `first` on, for all layers.
    pub(super) fn angles(&self, first: usize, count: usize) -> (Angles, Option<Angles>) {
        let of = |frequencies: &Frequencies| frequencies.angles(first, count, self.magnitude);
        (of(&self.global), self.windowed.as_ref().map(of))
    }

    /// Rotates `rows x heads x head_dim` numbers in place; one row per position.
    pub(super) fn rotate(&self, x: &mut [f32], heads: usize, head_dim: usize, angles: &Angles) {
        let pairs = self.dims / 2;
        for (row, angles) in x
            .chunks_exact_mut(heads * head_dim)
            .zip(angles.0.chunks_exact(pairs))
        {
            for head in row.chunks_exact_mut(head_dim) {
                match self.style {
                    RopeStyle::Interleaved => {
                        for ([a, b], [cos, sin]) in
                            head.as_chunks_mut::<2>().0.iter_mut().zip(angles)
                        {
                            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                        }
                    }
                    RopeStyle::Halves => {
                        let (first, rest) = head.split_at_mut(pairs);
                        for ((a, b), [cos, sin]) in first.iter_mut().zip(rest).zip(angles) {
                            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                        }
                    }
                }
            }
        }
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

    fn angles(&self, first: usize, count: usize, magnitude: f32) -> Angles {
        let mut angles = Vec::with_capacity(count * self.0.len());
        for position in first..first + count {
            angles.extend(self.0.iter().map(|frequency| {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                [cos * magnitude, sin * magnitude]
            }));
        }
        Angles(angles)
    }
}
