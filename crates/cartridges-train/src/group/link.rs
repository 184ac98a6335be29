//! A connection between two members: frames of a length and bytes. An empty frame is a sign of life, which
//! a thread sends while the member computes; another reads, so that no sender waits for a busy member.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The longest frame that is read.
const LONGEST: u32 = 1 << 30;

/// Writes a frame.
pub fn write_frame(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|n| *n <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other("more than 1 GiB at once"))?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(bytes)
}

/// Reads a frame of at most `limit` bytes. Memory is taken as bytes come, whatever the length says.
pub fn read_frame(mut stream: &TcpStream, limit: u32) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > limit {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("it announces {length} bytes, expected at most {limit}"),
        ));
    }
    let mut bytes = Vec::new();
    stream.take(length.into()).read_to_end(&mut bytes)?;
    match bytes.len() == length as usize {
        true => Ok(bytes),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// A connection whose other end has been checked.
#[derive(Debug)]
pub struct Link {
    writer: Arc<Mutex<TcpStream>>,
    frames: Receiver<io::Result<Vec<u8>>>,
    silence: Duration,
    /// Ends the signs of life when it is dropped.
    _beats: Sender<()>,
}

impl Link {
    /// Takes a connection over; the other end is lost after so much `silence`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn over(stream: TcpStream, silence: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(silence))?;
        stream.set_write_timeout(Some(silence))?;
        let reader = stream.try_clone()?;
        let (sender, frames) = channel();
        thread::Builder::new()
            .name("group-read".to_owned())
            .spawn(move || read_all(&reader, &sender))?;
        let writer = Arc::new(Mutex::new(stream));
        let (beats, ended) = channel();
        let beating = writer.clone();
        thread::Builder::new()
            .name("group-beat".to_owned())
            .spawn(move || beat(&beating, &ended, silence / 5))?;
        Ok(Self {
            writer,
            frames,
            silence,
            _beats: beats,
        })
    }

    /// Sends a message of any length: a frame with its length, and frames with its bytes.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        let stream = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut parts = message.chunks(LONGEST as usize);
        write_frame(&stream, &(message.len() as u64).to_le_bytes())
            .and_then(|()| parts.try_for_each(|part| write_frame(&stream, part)))
            .map_err(|error| explained(error, self.silence))
    }

    /// Waits for a message of the other end.
    pub fn receive(&self) -> io::Result<Vec<u8>> {
        self.message()
            .map_err(|error| explained(error, self.silence))
    }

    fn message(&self) -> io::Result<Vec<u8>> {
        let closed = |_| Err(io::Error::from(ErrorKind::UnexpectedEof));
        let frame = || self.frames.recv().unwrap_or_else(closed);
        let invalid = |what: &str| io::Error::new(ErrorKind::InvalidData, what);
        let head = frame()?;
        let head: [u8; 8] = head
            .try_into()
            .map_err(|_| invalid("a message does not begin with its length"))?;
        let length = u64::from_le_bytes(head);
        let mut message = match length {
            0 => Vec::new(),
            _ => frame()?,
        };
        while (message.len() as u64) < length {
            message.extend(frame()?);
        }
        match message.len() as u64 == length {
            true => Ok(message),
            false => Err(invalid("a message is longer than it says")),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let stream = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.shutdown(Shutdown::Write);
    }
}

fn read_all(stream: &TcpStream, frames: &Sender<io::Result<Vec<u8>>>) {
    loop {
        let frame = read_frame(stream, LONGEST);
        if frame.as_ref().is_ok_and(Vec::is_empty) {
            continue;
        }
        let over = frame.is_err();
        if frames.send(frame).is_err() || over {
            return;
        }
    }
}

fn beat(stream: &Mutex<TcpStream>, ended: &Receiver<()>, every: Duration) {
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(every) {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        if write_frame(&stream, &[]).is_err() {
            return;
        }
    }
}

/// The system's words for silence and for an end are its own; these are ours.
fn explained(error: io::Error, silence: Duration) -> io::Error {
    let words = match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no sign of life for {silence:?}"),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
            "it closed the connection (its own output says why)".to_owned()
        }
        _ => return error,
    };
    io::Error::new(error.kind(), words)
}
