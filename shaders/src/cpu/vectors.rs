//! Code for the vector instructions that the machine has.

use pulp::{Arch, NullaryFnOnce};

/// Runs `f` compiled for the machine's vector instructions, chosen at run time. `f` and what it calls have to be
/// `#[inline(always)]`: what is not inlined here is compiled for the oldest processors. That holds for the closures of
/// iterators, too: write loops over indices.
///
/// pulp would take the closure itself, and call it as a `FnOnce`. For one that only borrows, the compiler makes that
/// call by a function of its own, which is not inlined and so has no wide vectors.
#[inline(always)]
pub(super) fn vectorized<R>(f: impl FnMut() -> R) -> R {
    struct Body<F>(F);

    impl<R, F: FnMut() -> R> NullaryFnOnce for Body<F> {
        type Output = R;

        #[inline(always)]
        fn call(mut self) -> R {
            (self.0)()
        }
    }

    Arch::new().dispatch(Body(f))
}
