//! A pickle machine for one kind of file. It executes nothing: the few classes it knows are plain
//! marks on the values they would build, and every other class is refused by its name.

use std::collections::HashMap;

use super::pickle::{Class, Id, Node, Pickle, PickleError, Tensor, text};

// The first three values are shared by all who need them.
const NONE: Id = 0;
const BOOL: Id = 1;
const EMPTY_TUPLE: Id = 2;

/// The state of the machine between two operations.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the current operation began.
    started: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            started: 0,
            nodes: vec![Node::None, Node::Bool, Node::Tuple(Vec::new())],
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Pickle<'a>, PickleError> {
        if u32::try_from(self.bytes.len()).is_err() {
            return Err(self.wrong("is too large"));
        }
        loop {
            self.started = self.at;
            let [code] = self.array()?;
            match code {
                0x80 => {
                    let [protocol] = self.array()?;
                    if !(2..=3).contains(&protocol) {
                        return Err(
                            self.wrong("expected pickle protocol 2 (torch.save's own) or 3")
                        );
                    }
                }
                b'.' => return self.finish(),
                _ => self.step(code)?,
            }
        }
    }

    fn finish(mut self) -> Result<Pickle<'a>, PickleError> {
        let root = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() || self.at != self.bytes.len() {
            return Err(self.wrong("something is left over at the end"));
        }
        Ok(Pickle {
            bytes: self.bytes,
            nodes: self.nodes,
            root,
        })
    }

    fn step(&mut self, code: u8) -> Result<(), PickleError> {
        match code {
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(NONE),
            0x88 | 0x89 => self.stack.push(BOOL),
            b')' => self.stack.push(EMPTY_TUPLE),
            b']' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b'K' => {
                let [n] = self.array()?;
                self.push(Node::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.push(Node::Int(n.into()));
            }
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(n.into()));
            }
            0x8a => self.long()?,
            b'G' => {
                self.array::<8>()?;
                self.push(Node::Float);
            }
            b'X' => {
                let len = u32::from_le_bytes(self.array()?);
                let start = self.at;
                let bytes = self.take(len as usize)?;
                if str::from_utf8(bytes).is_err() {
                    return Err(self.wrong("text is not UTF-8"));
                }
                // `run` checked that positions fit.
                self.push(Node::Text(start as u32..self.at as u32));
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Class(Class::find(module, name)?));
            }
            b'q' => {
                let [slot] = self.array()?;
                self.remember(slot.into())?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.remember(slot)?;
            }
            b'h' => {
                let [slot] = self.array()?;
                self.recall(slot.into())?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.recall(slot)?;
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items));
            }
            0x85..=0x87 => {
                let at = (self.stack.len())
                    .checked_sub(usize::from(code - 0x84))
                    .filter(|at| *at >= self.floor())
                    .ok_or_else(|| self.wrong("too few values for a tuple"))?;
                let items = self.take_above(at);
                self.push(Node::Tuple(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage);
            }
            0x81 => {
                let (class, arguments) = self.call()?;
                if class != Class::ParameterList || !arguments.is_empty() {
                    return Err(self.wrong("only a ParameterList can be created anew"));
                }
                self.push(Node::ParameterList(None));
            }
            b'R' => {
                let (class, arguments) = self.call()?;
                self.reduce(class, &arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                match &mut self.nodes[target] {
                    Node::ParameterList(slot @ None) => *slot = Some(state),
                    _ => return Err(self.wrong("only a new ParameterList can be given a state")),
                }
            }
            code => {
                let offset = self.started;
                return Err(PickleError::UnknownOperation { code, offset });
            }
        }
        Ok(())
    }

    fn reduce(&mut self, class: Class, arguments: &[Id]) -> Result<(), PickleError> {
        match (class, arguments) {
            (Class::OrderedDict, []) => self.push(Node::Dict(Vec::new())),
            (Class::Set, [] | [_]) => self.push(Node::Set),
            (Class::RebuildParameter, [tensor, _, _]) => match self.nodes[*tensor] {
                Node::Tensor(_) => self.stack.push(*tensor),
                _ => return Err(self.wrong("a parameter needs a tensor")),
            },
            (Class::RebuildTensor, [storage, offset, shape, stride, _, _, ..]) => {
                let Node::Storage { dtype, number, len } = self.nodes[*storage] else {
                    return Err(self.wrong("a tensor needs a storage"));
                };
                let (shape, stride, axes) = self.axes(*shape, *stride)?;
                let tensor = Tensor {
                    dtype,
                    storage: number,
                    storage_len: len,
                    offset: self.count(*offset)?,
                    shape,
                    stride,
                    axes,
                };
                self.push(Node::Tensor(Box::new(tensor)));
            }
            _ => return Err(self.wrong("a call with the wrong arguments")),
        }
        Ok(())
    }

    /// Reads `("storage", class, "7", "cpu", elements)`.
    fn storage(&self, id: Id) -> Result<Node, PickleError> {
        let Node::Tuple(parts) = &self.nodes[id] else {
            return Err(self.wrong("a storage needs a tuple"));
        };
        let [tag, class, key, _device, len] = parts[..] else {
            return Err(self.wrong("a storage needs five parts"));
        };
        let Node::Class(Class::Storage(dtype)) = self.nodes[class] else {
            return Err(self.wrong("a storage needs a storage class"));
        };
        let number = text(self.bytes, &self.nodes[key])
            .filter(|key| key.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|key| key.parse().ok());
        match (text(self.bytes, &self.nodes[tag]), number) {
            (Some("storage"), Some(number)) => Ok(Node::Storage {
                dtype,
                number,
                len: self.count(len)?,
            }),
            _ => Err(self.wrong("a storage needs a number as its name")),
        }
    }

    fn count(&self, id: Id) -> Result<u64, PickleError> {
        match self.nodes[id] {
            Node::Int(n) => u64::try_from(n).map_err(|_| self.wrong("a size is negative")),
            _ => Err(self.wrong("a size is not a whole number")),
        }
    }

    /// Sizes and strides of at most four axes, with ones before them where there are fewer.
    fn axes(&self, shape: Id, stride: Id) -> Result<([u64; 4], [u64; 4], u8), PickleError> {
        let (Node::Tuple(shape), Node::Tuple(stride)) = (&self.nodes[shape], &self.nodes[stride])
        else {
            return Err(self.wrong("a shape is not a tuple"));
        };
        let first = (4usize.checked_sub(shape.len()))
            .filter(|_| shape.len() == stride.len())
            .ok_or_else(|| self.wrong("a tensor needs a stride per size and at most four axes"))?;
        let (mut sizes, mut steps) = ([1; 4], [0; 4]);
        for (at, (size, step)) in shape.iter().zip(stride).enumerate() {
            sizes[first + at] = self.count(*size)?;
            steps[first + at] = self.count(*step)?;
        }
        Ok((sizes, steps, shape.len() as u8))
    }

    /// Takes the arguments (a tuple) and what is to be called with them.
    fn call(&mut self) -> Result<(Class, Vec<Id>), PickleError> {
        let arguments = self.pop()?;
        let class = self.pop()?;
        match (&self.nodes[class], &self.nodes[arguments]) {
            // No known call has more; a long shared tuple would be copied again and again.
            (Node::Class(class), Node::Tuple(items)) if items.len() <= 8 => {
                Ok((*class, items.clone()))
            }
            _ => Err(self.wrong("a call needs a known class and a short tuple")),
        }
    }

    /// LONG1: a whole number of any width, little-endian two's complement.
    fn long(&mut self) -> Result<(), PickleError> {
        let [len] = self.array()?;
        let bytes = self.take(len.into())?;
        if bytes.len() > 8 {
            return Err(self.wrong("a whole number has more than 64 bits"));
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut full = [if negative { 0xff } else { 0 }; 8];
        full[..bytes.len()].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(full)));
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), PickleError> {
        let target = self.top()?;
        match &mut self.nodes[target] {
            Node::List(list) => list.extend(items),
            _ => return Err(self.wrong("only a list can be appended to")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let target = self.top()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(self.wrong("a key without a value"));
        };
        match &mut self.nodes[target] {
            Node::Dict(dict) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            _ => return Err(self.wrong("only a dict can be given items")),
        }
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Result<(), PickleError> {
        let id = self.top()?;
        self.memo.insert(slot, id);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), PickleError> {
        let id = self.memo.get(&slot).copied();
        self.stack
            .push(id.ok_or_else(|| self.wrong("recalls what was never stored"))?);
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    /// Values below the last mark belong to someone else.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn top(&self) -> Result<Id, PickleError> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.floor() => Ok(*id),
            _ => Err(self.wrong("needs a value where there is none")),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.take_above(mark)),
            None => Err(self.wrong("closes a group that was never opened")),
        }
    }

    /// Not `split_off`: that hands on the whole capacity of the stack, again and again.
    fn take_above(&mut self, at: usize) -> Vec<Id> {
        self.stack.drain(at..).collect()
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.get(..len) {
            Some(bytes) => {
                self.at += len;
                Ok(bytes)
            }
            None => Err(PickleError::Truncated {
                offset: self.bytes.len(),
            }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Text up to the next newline.
    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(len) = rest.iter().position(|b| *b == b'\n') else {
            let offset = self.bytes.len();
            return Err(PickleError::Truncated { offset });
        };
        let line = self.take(len)?;
        self.at += 1;
        str::from_utf8(line).map_err(|_| self.wrong("a class name is not UTF-8"))
    }

    fn wrong(&self, problem: &'static str) -> PickleError {
        PickleError::Malformed {
            offset: self.started,
            problem,
        }
    }
}
