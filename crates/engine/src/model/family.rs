//! What sets one family of models apart from another, as data.
//!
//! All are decoders with root-mean-square norms, grouped-query attention,
//! rotary positions and a gated feed-forward part. Gemma's norms multiply by
//! one plus the weight; GGUF files carry that one in the weight already.

/// How a rotation pairs the numbers of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RopeStyle {
    /// (0,1), (2,3), …: files of the llama family are permuted to this.
    Interleaved,
    /// (0,n/2), (1,n/2+1), …
    Halves,
}

/// How projections that share their input are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// One tensor each.
    Apart,
    /// Rows of one tensor, one after the other.
    Fused,
}

/// Which projections add a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bias {
    /// None does.
    Never,
    /// Query, key and value must.
    Qkv,
    /// Whichever the file has one for.
    Optional,
}

/// The function on the feed-forward part's gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Silu,
    /// Gelu in its tanh form.
    Gelu,
}

/// Layers that see only the last tokens, and rotate by their own base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Windowed {
    /// Of so many layers the last sees everything, unless the file says so otherwise.
    pub(super) pattern: u32,
    /// Base of the windowed layers' rotation, unless the file says otherwise.
    pub(super) theta: f32,
}

/// One family.
#[derive(Debug)]
pub(super) struct Family {
    /// The file's `general.architecture`, and the prefix of its keys.
    pub(super) name: &'static str,
    pub(super) rope: RopeStyle,
    /// Whether one of two sets of rotary factors is chosen by context.
    pub(super) long_rope: bool,
    pub(super) qkv: Stored,
    pub(super) gate_up: Stored,
    pub(super) bias: Bias,
    /// Whether each head of query and key is normed before it is rotated.
    pub(super) qk_norm: bool,
    /// Whether the parts' outputs are normed before they are added.
    pub(super) sandwich: bool,
    pub(super) activation: Activation,
    /// Whether embeddings are multiplied by the square root of the width.
    pub(super) scaled_embedding: bool,
    /// With this many layers, queries are scaled by width / heads instead of
    /// the head size (gemma3's 27B, which its files do not tell).
    pub(super) wide_query_layers: Option<usize>,
    pub(super) windowed: Option<Windowed>,
    /// Every so many layers, the last one has no positions at all.
    pub(super) unrotated_step: Option<usize>,
    /// Whether files give multipliers for embedding, attention, what the parts
    /// add, and logits.
    pub(super) multipliers: bool,
}

const LLAMA: Family = Family {
    name: "llama",
    rope: RopeStyle::Interleaved,
    long_rope: false,
    qkv: Stored::Apart,
    gate_up: Stored::Apart,
    bias: Bias::Optional,
    qk_norm: false,
    sandwich: false,
    activation: Activation::Silu,
    scaled_embedding: false,
    wide_query_layers: None,
    windowed: None,
    unrotated_step: None,
    multipliers: false,
};

static FAMILIES: [Family; 7] = [
    LLAMA,
    Family {
        name: "qwen2",
        rope: RopeStyle::Halves,
        bias: Bias::Qkv,
        ..LLAMA
    },
    Family {
        name: "qwen3",
        rope: RopeStyle::Halves,
        bias: Bias::Never,
        qk_norm: true,
        ..LLAMA
    },
    Family {
        name: "gemma3",
        rope: RopeStyle::Halves,
        bias: Bias::Never,
        qk_norm: true,
        sandwich: true,
        activation: Activation::Gelu,
        scaled_embedding: true,
        wide_query_layers: Some(62),
        windowed: Some(Windowed {
            pattern: 6,
            theta: 10_000.0,
        }),
        ..LLAMA
    },
    // Its files' `attention.sliding_window` is not applied: converters wrote
    // wrong values, and llama.cpp ignores it for the same reason.
    Family {
        name: "phi3",
        rope: RopeStyle::Halves,
        long_rope: true,
        qkv: Stored::Fused,
        gate_up: Stored::Fused,
        bias: Bias::Never,
        ..LLAMA
    },
    Family {
        name: "smollm3",
        bias: Bias::Never,
        unrotated_step: Some(4),
        ..LLAMA
    },
    Family {
        name: "granite",
        multipliers: true,
        ..LLAMA
    },
];

impl Family {
    /// The family of an architecture's name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.name == name)
    }

    /// All names, for messages.
    pub(super) fn names() -> String {
        FAMILIES.each_ref().map(|family| family.name).join(", ")
    }
}
