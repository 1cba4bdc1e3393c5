//! Which vector instructions to use.

/// A set of kernels, named by the instructions they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Portable code; runs everywhere.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// As [`Isa::Avx2`], with integer dot products: AVX-VNNI, or VNNI of
    /// AVX-512 at 256 bits.
    Avx2Vnni,
    /// x86-64 with AVX-512 F, BW, VL, VNNI and BF16.
    Avx512,
    /// AArch64 with the dot product instructions.
    Neon,
}

impl Isa {
    /// The fastest that this processor has.
    pub fn best() -> Self {
        let order = [Self::Avx512, Self::Avx2Vnni, Self::Avx2, Self::Neon];
        order
            .into_iter()
            .find(|isa| isa.is_available())
            .unwrap_or(Self::Scalar)
    }

    /// All that this processor has, the portable one first.
    pub fn available() -> Vec<Self> {
        let all = [
            Self::Scalar,
            Self::Avx2,
            Self::Avx2Vnni,
            Self::Avx512,
            Self::Neon,
        ];
        all.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Vnni => {
                Self::Avx2.is_available()
                    && (is_x86_feature_detected!("avxvnni")
                        || is_x86_feature_detected!("avx512vnni")
                            && is_x86_feature_detected!("avx512vl"))
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512bf16")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => {
                std::arch::is_aarch64_feature_detected!("neon")
                    && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[allow(unreachable_patterns, reason = "which are left depends on the target")]
            _ => false,
        }
    }

    /// Itself, or the portable one where the processor lacks it. Every kernel
    /// asks this before it enters vector code, so that no value of this type
    /// can lead to an instruction that the processor does not know.
    #[inline]
    pub(super) fn usable(self) -> Self {
        if self.is_available() {
            self
        } else {
            Self::Scalar
        }
    }

    /// Runs portable code compiled for this instruction set: the compiler
    /// vectorises what is inlined into `work`.
    #[inline]
    pub(super) fn compiled<R>(self, work: impl FnOnce() -> R) -> R {
        match self.usable() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `usable` has checked the features.
            Self::Avx512 => unsafe { for_avx512(work) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `usable` has checked the features.
            Self::Avx2 | Self::Avx2Vnni => unsafe { for_avx2(work) },
            // NEON is part of AArch64: plain code already uses it.
            _ => work(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
fn for_avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn for_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}
