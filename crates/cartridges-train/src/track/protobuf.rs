//! Protocol Buffers' wire format, as far as log files need it (protobuf.dev, "Encoding").

/// A message in the making. Fields stand in the order of the calls.
#[derive(Debug, Clone, Default)]
pub struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    /// Without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// The encoded message.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// An integer that is not negative.
    pub fn int(mut self, field: u64, value: u64) -> Self {
        self.tag(field, VARINT);
        self.varint(value);
        self
    }

    /// A double.
    pub fn double(mut self, field: u64, value: f64) -> Self {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A float.
    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.tag(field, FIXED32);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A string.
    pub fn string(self, field: u64, value: &str) -> Self {
        self.raw(field, value.as_bytes())
    }

    /// A string that is left out when it is empty.
    pub fn some_string(self, field: u64, value: &str) -> Self {
        match value.is_empty() {
            true => self,
            false => self.string(field, value),
        }
    }

    /// Another message.
    pub fn message(self, field: u64, value: &Message) -> Self {
        self.raw(field, &value.0)
    }

    fn raw(mut self, field: u64, value: &[u8]) -> Self {
        self.tag(field, LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn tag(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's own description.
    #[test]
    fn the_documents_examples() {
        assert_eq!(Message::new().int(1, 150).bytes(), [0x08, 0x96, 0x01]);
        let testing = Message::new().string(2, "testing");
        assert_eq!(testing.bytes(), b"\x12\x07testing");
        let inner = Message::new().int(1, 150);
        let outer = Message::new().message(3, &inner);
        assert_eq!(outer.bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let long = Message::new().int(16, 0);
        assert_eq!(long.bytes(), [0x80, 0x01, 0x00]);
    }

    /// An event as the protobuf library writes it: wall time 1.5, step 300, one scalar.
    #[test]
    fn an_event_is_that_of_the_library() {
        let value = Message::new().string(1, "train/loss").float(2, 0.25);
        let summary = Message::new().message(1, &value);
        let event = Message::new()
            .double(1, 1.5)
            .int(2, 300)
            .message(5, &summary);
        let hex: String = event.bytes().iter().map(|b| format!("{b:02x}")).collect();
        let wanted = "09000000000000f83f10ac022a130a110a0a747261696e2f6c6f7373150000803e";
        assert_eq!(hex, wanted);
    }
}
