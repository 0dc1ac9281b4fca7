//! A kernel's text and the numbers it is compiled for.

/// What the texts take from the compiler; the emulator has its own.
const PRELUDE: &str = "\
#define KERNEL extern \"C\" __global__
#define SHARED_MEMORY(name) extern __shared__ __align__(1024) unsigned char name[]
";

/// A kernel in CUDA C++.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Its name in the text.
    pub entry: &'static str,
    /// What the text leaves to be defined.
    pub definitions: Vec<(&'static str, usize)>,
    /// The hardware's instructions that it uses, of which some depend on the definitions.
    pub instructions: fn(&Source) -> String,
    /// The kernel itself.
    pub kernel: &'static [&'static str],
    /// Threads of a block.
    pub threads: u32,
    /// Shared memory of a block, in bytes.
    pub shared_memory: usize,
}

impl Source {
    /// The whole text, as the compiler gets it.
    pub(super) fn text(&self) -> String {
        let define = |(name, value): &(&str, usize)| format!("#define {name} {value}\n");
        let mut text: String = self.definitions.iter().map(define).collect();
        text.push_str(PRELUDE);
        text.push_str(&(self.instructions)(self));
        text.extend(self.kernel.iter().copied());
        text
    }

    /// The value of a definition.
    pub(super) fn value(&self, name: &str) -> usize {
        let found = self.definitions.iter().find(|(defined, _)| *defined == name);
        found.map_or(0, |(_, value)| *value)
    }
}
