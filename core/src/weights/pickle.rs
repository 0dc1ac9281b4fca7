//! A pickle reader that executes nothing.
//!
//! Pickle is a program for a stack machine. This one understands the instructions that
//! `torch.save` emits; calling a global is only ever "remember that it was called with these
//! arguments". All values live in one arena that grows by at most one node an instruction, and
//! instructions and text are counted, so that memory has an end whatever a file says: a value may be
//! put together from others again and again. Nothing recurses.

use std::collections::HashMap;

/// Index of a value in the arena.
pub(super) type Id = usize;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// At most [`MAX_BYTES`] of them; of more, none.
    Bytes(Vec<u8>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `module.name`
    Global(String),
    /// A global called with arguments; `state` is what BUILD set.
    Call {
        global: Id,
        arguments: Id,
        state: Option<Id>,
    },
    /// What the container knows by this identifier (a storage).
    Persistent(Id),
    /// Whatever this reader has no use for.
    Opaque,
}

/// Instructions of a pickle at most: those of hundreds of thousands of tensors.
const MAX_INSTRUCTIONS: usize = 32_000_000;
/// Bytes of text in a pickle at most, and of the names of globals.
pub(super) const MAX_TEXT: usize = 256 << 20;

/// Takes from the bytes that texts may still have.
pub(super) fn spend(left: &mut usize, bytes: usize) -> Result<(), String> {
    *left = left
        .checked_sub(bytes)
        .ok_or_else(|| format!("the pickle has more than {} MiB of text", MAX_TEXT >> 20))?;
    Ok(())
}

/// Bytes that are kept: those of one number.
const MAX_BYTES: usize = 8;

/// The values of one pickle.
pub(super) struct Pickle {
    nodes: Vec<Node>,
    pub(super) root: Id,
}

impl Pickle {
    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn get(&self, id: Id) -> Option<&Node> {
        self.nodes.get(id)
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match *self.node(id) {
            Node::Int(i) => Some(i),
            _ => None,
        }
    }

    /// The elements of a tuple or list.
    pub(super) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// Reads one pickle from the front of `input`; returns it and what follows.
    pub(super) fn read(input: &[u8]) -> Result<(Self, &[u8]), String> {
        let mut machine = Machine {
            input,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            instructions_left: MAX_INSTRUCTIONS,
            text_left: MAX_TEXT,
        };
        let root = machine.run()?;
        Ok((Self { nodes: machine.nodes, root }, machine.input))
    }
}

struct Machine<'a> {
    input: &'a [u8],
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// What may still come: instructions, and bytes of text.
    instructions_left: usize,
    text_left: usize,
}

type Run<T> = Result<T, String>;

fn truncated() -> String {
    "the pickle is truncated".into()
}

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Run<&'a [u8]> {
        let (head, tail) = self.input.split_at_checked(n).ok_or_else(truncated)?;
        self.input = tail;
        Ok(head)
    }

    fn number(&mut self, bytes: usize) -> Run<u64> {
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(self.take(bytes)?);
        Ok(u64::from_le_bytes(value))
    }

    fn sized(&mut self, length_bytes: usize) -> Run<&'a [u8]> {
        let n = self.number(length_bytes)?;
        self.take(usize::try_from(n).map_err(|_| truncated())?)
    }

    fn line(&mut self) -> Run<&'a str> {
        let end = self.input.iter().position(|&b| b == b'\n').ok_or_else(truncated)?;
        let line = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| "the pickle has a line that is not text".into())
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
    }

    fn pop(&mut self) -> Run<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("pickle stack underflow".into());
        }
        self.stack.pop().ok_or_else(truncated)
    }

    fn top(&self) -> Run<Id> {
        self.stack.last().copied().ok_or_else(|| "the pickle's stack is empty".into())
    }

    /// Everything above the last mark.
    fn since_mark(&mut self) -> Run<Vec<Id>> {
        let mark = self.marks.pop().ok_or("the pickle has no mark where it needs one")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn text(&mut self, bytes: &[u8]) -> Run<()> {
        spend(&mut self.text_left, bytes.len())?;
        let text = String::from_utf8_lossy(bytes).into_owned();
        // What is not UTF-8 becomes longer.
        spend(&mut self.text_left, text.len().saturating_sub(bytes.len()))?;
        self.push(Node::Text(text));
        Ok(())
    }

    /// The node of a global; one may be put together from two texts any number of times.
    fn named(left: &mut usize, module: &str, name: &str) -> Run<Node> {
        spend(left, module.len() + name.len() + 1)?;
        Ok(Node::Global(format!("{module}.{name}")))
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let kept = if bytes.len() <= MAX_BYTES { bytes.to_vec() } else { Vec::new() };
        self.push(Node::Bytes(kept));
    }

    /// A little-endian two's complement integer; those beyond 64 bits are opaque.
    fn long(&mut self, bytes: &[u8]) {
        let node = match bytes.len() {
            0 => Node::Int(0),
            n if n <= 8 => {
                let fill = if bytes[n - 1] & 0x80 != 0 { 0xff } else { 0 };
                let mut value = [fill; 8];
                value[..n].copy_from_slice(bytes);
                Node::Int(i64::from_le_bytes(value))
            }
            _ => Node::Opaque,
        };
        self.push(node);
    }

    fn tuple(&mut self, n: usize) -> Run<()> {
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Node::Tuple(items));
        Ok(())
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Run<()> {
        let list = self.top()?;
        if let Node::List(values) = &mut self.nodes[list] {
            values.extend(items);
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: Vec<Id>) -> Run<()> {
        let dict = self.top()?;
        if let Node::Dict(pairs) = &mut self.nodes[dict] {
            pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(())
    }

    fn memoize(&mut self, key: u64) -> Run<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Run<()> {
        let id = *self.memo.get(&key).ok_or("the pickle recalls a value that it never stored")?;
        self.stack.push(id);
        Ok(())
    }

    fn call(&mut self, global: Id, arguments: Id) {
        // An OrderedDict is a dictionary; its items follow by SETITEMS.
        let is_dict = matches!(&self.nodes[global], Node::Global(name)
            if name == "collections.OrderedDict");
        self.push(if is_dict {
            Node::Dict(Vec::new())
        } else {
            Node::Call { global, arguments, state: None }
        });
    }

    fn run(&mut self) -> Run<Id> {
        loop {
            self.instructions_left = self.instructions_left.checked_sub(1).ok_or_else(|| {
                format!("the pickle has more than {MAX_INSTRUCTIONS} instructions")
            })?;
            let opcode = self.take(1)?[0];
            match opcode {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),               // PROTO
                0x95 => drop(self.take(8)?),               // FRAME
                b'(' => self.marks.push(self.stack.len()), // MARK
                b'0' => drop(self.pop()?),                 // POP
                b'1' => drop(self.since_mark()?),          // POP_MARK
                b'2' => {
                    let top = self.top()?; // DUP
                    self.stack.push(top);
                }
                b'N' => self.push(Node::None),
                0x88 => self.push(Node::Bool(true)),
                0x89 => self.push(Node::Bool(false)),
                b'J' => {
                    let value = self.number(4)? as u32 as i32; // BININT
                    self.push(Node::Int(value.into()));
                }
                b'K' => {
                    let value = self.number(1)?; // BININT1
                    self.push(Node::Int(value as i64));
                }
                b'M' => {
                    let value = self.number(2)?; // BININT2
                    self.push(Node::Int(value as i64));
                }
                0x8a => {
                    let bytes = self.sized(1)?; // LONG1
                    self.long(bytes);
                }
                0x8b => {
                    let bytes = self.sized(4)?; // LONG4
                    self.long(bytes);
                }
                b'I' | b'L' => {
                    let line = self.line()?.trim_end_matches('L'); // INT, LONG
                    let node = match line {
                        "00" => Node::Bool(false),
                        "01" => Node::Bool(true),
                        _ => line.parse().map_or(Node::Opaque, Node::Int),
                    };
                    self.push(node);
                }
                b'F' => {
                    let node = self.line()?.parse().map_or(Node::Opaque, Node::Float); // FLOAT
                    self.push(node);
                }
                b'G' => {
                    let bits = self.number(8)?.swap_bytes(); // BINFLOAT, big-endian
                    self.push(Node::Float(f64::from_bits(bits)));
                }
                b'X' => {
                    let bytes = self.sized(4)?; // BINUNICODE
                    self.text(bytes)?;
                }
                0x8c => {
                    let bytes = self.sized(1)?; // SHORT_BINUNICODE
                    self.text(bytes)?;
                }
                0x8d => {
                    let bytes = self.sized(8)?; // BINUNICODE8
                    self.text(bytes)?;
                }
                b'V' | b'S' => {
                    let line = self.line()?; // UNICODE, STRING
                    self.text(line.trim_matches(['\'', '"']).as_bytes())?;
                }
                b'U' => {
                    let bytes = self.sized(1)?; // SHORT_BINSTRING
                    self.text(bytes)?;
                }
                b'T' => {
                    let bytes = self.sized(4)?; // BINSTRING
                    self.text(bytes)?;
                }
                b'B' => {
                    let bytes = self.sized(4)?; // BINBYTES
                    self.bytes(bytes);
                }
                b'C' => {
                    let bytes = self.sized(1)?; // SHORT_BINBYTES
                    self.bytes(bytes);
                }
                0x8e | 0x96 => {
                    let bytes = self.sized(8)?; // BINBYTES8, BYTEARRAY8
                    self.bytes(bytes);
                }
                b')' => self.push(Node::Tuple(Vec::new())),
                b']' => self.push(Node::List(Vec::new())),
                b'}' => self.push(Node::Dict(Vec::new())),
                0x8f => self.push(Node::List(Vec::new())), // EMPTY_SET
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.since_mark()?; // TUPLE
                    self.push(Node::Tuple(items));
                }
                b'l' | 0x91 => {
                    let items = self.since_mark()?; // LIST, FROZENSET
                    self.push(Node::List(items));
                }
                b'd' => {
                    let items = self.since_mark()?; // DICT
                    self.push(Node::Dict(Vec::new()));
                    self.extend_dict(items)?;
                }
                b'a' => {
                    let item = self.pop()?; // APPEND
                    self.extend_list(vec![item])?;
                }
                b'e' | 0x90 => {
                    let items = self.since_mark()?; // APPENDS, ADDITEMS
                    self.extend_list(items)?;
                }
                b's' => {
                    let value = self.pop()?; // SETITEM
                    let key = self.pop()?;
                    self.extend_dict(vec![key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?; // SETITEMS
                    self.extend_dict(items)?;
                }
                b'c' => {
                    let module = self.line()?; // GLOBAL
                    let name = self.line()?;
                    let node = Self::named(&mut self.text_left, module, name)?;
                    self.push(node);
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?); // STACK_GLOBAL
                    let node = match (&self.nodes[module], &self.nodes[name]) {
                        (Node::Text(module), Node::Text(name)) => {
                            Self::named(&mut self.text_left, module, name)?
                        }
                        _ => Node::Opaque,
                    };
                    self.push(node);
                }
                b'R' | 0x81 => {
                    let (arguments, global) = (self.pop()?, self.pop()?); // REDUCE, NEWOBJ
                    self.call(global, arguments);
                }
                0x92 => {
                    self.pop()?; // NEWOBJ_EX: keyword arguments are not used by tensors
                    let (arguments, global) = (self.pop()?, self.pop()?);
                    self.call(global, arguments);
                }
                b'b' => {
                    let state = self.pop()?; // BUILD
                    let object = self.top()?;
                    if let Node::Call { state: slot, .. } = &mut self.nodes[object] {
                        *slot = Some(state);
                    }
                }
                b'Q' => {
                    let id = self.pop()?; // BINPERSID
                    self.push(Node::Persistent(id));
                }
                b'q' => {
                    let key = self.number(1)?; // BINPUT
                    self.memoize(key)?;
                }
                b'r' => {
                    let key = self.number(4)?; // LONG_BINPUT
                    self.memoize(key)?;
                }
                0x94 => {
                    let key = self.memo.len() as u64; // MEMOIZE
                    self.memoize(key)?;
                }
                b'h' => {
                    let key = self.number(1)?; // BINGET
                    self.recall(key)?;
                }
                b'j' => {
                    let key = self.number(4)?; // LONG_BINGET
                    self.recall(key)?;
                }
                b'p' => {
                    let key = self.line()?.parse().map_err(|_| truncated())?; // PUT
                    self.memoize(key)?;
                }
                b'g' => {
                    let key = self.line()?.parse().map_err(|_| truncated())?; // GET
                    self.recall(key)?;
                }
                other => {
                    return Err(format!(
                        "the pickle has an instruction {other:#04x} that checkpoints do not use"
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(input: &[u8]) -> String {
        Pickle::read(input).err().expect("it is refused")
    }

    #[test]
    fn instructions_are_counted() {
        let nothing = b"\x80\x02"; // PROTO keeps nothing
        let of =
            |instructions: usize| [nothing.repeat(instructions - 2).as_slice(), b"N."].concat();
        assert!(Pickle::read(&of(MAX_INSTRUCTIONS)).is_ok());
        assert!(refused(&of(MAX_INSTRUCTIONS + 1)).contains("more than 32000000 instructions"));
    }

    #[test]
    fn texts_and_what_is_put_together_of_them_are_counted() {
        let long = vec![b'a'; MAX_TEXT / 3 + 1];
        let text = [b"X".as_slice(), &(long.len() as u32).to_le_bytes(), &long].concat();
        // Of a text that is stored once, two make a global.
        let global = [text.as_slice(), b"q\x00h\x00\x93."].concat();
        assert!(refused(&global).contains("more than 256 MiB of text"));
        // What is not UTF-8 has three bytes for each of its own.
        let mut bytes = text.clone();
        bytes[5..].fill(0xff);
        assert!(refused(&[bytes.as_slice(), b"."].concat()).contains("of text"));
        assert!(Pickle::read(&[text.as_slice(), b"."].concat()).is_ok());
    }
}
