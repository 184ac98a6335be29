//! A group over TCP, for what Burn's own distributed runtime does not reach: processors, several
//! processes, several machines. Everybody is connected to member 0, which adds up in the order of ranks and
//! in f64; what travels is f32. Connections are neither encrypted nor authenticated: for one machine or a trusted network.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::exchange::{Exchange, GroupError};
use super::facts::Facts;
use super::link::{Link, read_frame, write_frame};
use super::options::GroupOptions;

/// The version of what members say to each other.
const PROTOCOL: u32 = 1;
const MAGIC: &str = "cartridges-train";
/// The longest greeting.
const GREETING: u32 = 1 << 20;
/// How long somebody who has connected may take to greet.
const GREETING_TIME: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    magic: String,
    protocol: u32,
    rank: usize,
    size: usize,
    facts: Facts,
}

/// What the leader answers.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    refused: Option<String>,
}

/// A member of a group over TCP.
#[derive(Debug)]
pub struct Star {
    rank: usize,
    size: usize,
    /// Of member 0: to members 1, 2 and so on; of the others: to member 0.
    links: Vec<Link>,
}

impl Star {
    /// Waits as member 0 at `listener` until all others have joined. `check` is asked now and then whether
    /// waiting makes sense.
    ///
    /// # Errors
    /// [`GroupError`] if somebody does not fit or does not come, or `check` says no.
    pub fn lead(
        listener: &TcpListener,
        size: usize,
        facts: &Facts,
        options: GroupOptions,
        check: &mut dyn FnMut() -> Result<(), GroupError>,
    ) -> Result<Self, GroupError> {
        let begin = Instant::now();
        let failed = |source| GroupError::Listen {
            address: listener
                .local_addr()
                .map_or_else(|_| "its address".to_owned(), |a| a.to_string()),
            source,
        };
        listener.set_nonblocking(true).map_err(failed)?;
        let mut joined: Vec<Option<Link>> = (1..size).map(|_| None).collect();
        loop {
            let found = 1 + joined.iter().flatten().count();
            if found == size {
                break;
            }
            if begin.elapsed() > options.join {
                let waited = options.join;
                return Err(GroupError::Incomplete {
                    found,
                    size,
                    waited,
                });
            }
            check()?;
            match listener.accept() {
                Ok((stream, address)) => {
                    welcome(stream, address, facts, options, &mut joined)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(POLL),
                Err(error) => return Err(failed(error)),
            }
        }
        let mut star = Self {
            rank: 0,
            size,
            links: joined.into_iter().flatten().collect(),
        };
        star.share(b"all here".to_vec())?;
        Ok(star)
    }

    /// Joins as member `rank` the group whose member 0 is at `leader`, `host:port`.
    ///
    /// # Errors
    /// [`GroupError`] if it cannot be reached in time or does not take this process.
    pub fn join(
        leader: &str,
        rank: usize,
        size: usize,
        facts: &Facts,
        options: GroupOptions,
    ) -> Result<Self, GroupError> {
        let begin = Instant::now();
        let unreachable = |source| GroupError::Unreachable {
            leader: leader.to_owned(),
            source,
        };
        // It may still be loading its model.
        let stream = loop {
            match TcpStream::connect(leader) {
                Ok(stream) => break stream,
                Err(error) if error.kind() != ErrorKind::ConnectionRefused => {
                    return Err(unreachable(error));
                }
                Err(error) if begin.elapsed() > options.join => return Err(unreachable(error)),
                Err(_) => sleep(POLL * 10),
            }
        };
        let greet = || -> io::Result<Answer> {
            // The leader greets one after the other.
            stream.set_read_timeout(Some(options.join))?;
            let hello = Hello {
                magic: MAGIC.to_owned(),
                protocol: PROTOCOL,
                rank,
                size,
                facts: facts.clone(),
            };
            write_frame(&stream, &serde_json::to_vec(&hello)?)?;
            Ok(serde_json::from_slice(&read_frame(&stream, GREETING)?)?)
        };
        if let Some(problem) = greet().map_err(unreachable)?.refused {
            return Err(GroupError::Refused(problem));
        }
        let link = Link::over(stream, options.silence).map_err(unreachable)?;
        let mut star = Self {
            rank,
            size,
            links: vec![link],
        };
        star.share(Vec::new())?;
        Ok(star)
    }

    fn lost(&self, link: usize, error: io::Error) -> GroupError {
        let who = match self.rank {
            0 => format!("rank {}", link + 1),
            _ => "the leader".to_owned(),
        };
        let problem = error.to_string();
        GroupError::Lost { who, problem }
    }

    fn send(&self, link: usize, bytes: &[u8]) -> Result<(), GroupError> {
        let sent = self.links[link].send(bytes);
        sent.map_err(|error| self.lost(link, error))
    }

    fn receive(&self, link: usize) -> Result<Vec<u8>, GroupError> {
        let received = self.links[link].receive();
        received.map_err(|error| self.lost(link, error))
    }

    /// What a member sends to be added up, of the same lengths as `own`.
    fn receive_part(&self, link: usize, own: &Part) -> Result<Part, GroupError> {
        let bytes = self.receive(link)?;
        let expected = 8 * own.numbers.len() + 4 * own.values.len();
        if bytes.len() != expected {
            let text = format!("it sent {} bytes, expected {expected}", bytes.len());
            return Err(self.lost(link, io::Error::new(ErrorKind::InvalidData, text)));
        }
        let (numbers, values) = bytes.split_at(8 * own.numbers.len());
        let (numbers, _) = numbers.as_chunks();
        let (values, _) = values.as_chunks();
        Ok(Part {
            numbers: numbers.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            values: values.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        })
    }
}

/// Greets who has connected. A stranger is sent away; a member that does not fit ends the group, because
/// it will not come again.
fn welcome(
    stream: TcpStream,
    address: SocketAddr,
    facts: &Facts,
    options: GroupOptions,
    joined: &mut [Option<Link>],
) -> Result<(), GroupError> {
    let greet = || -> io::Result<Hello> {
        // Some systems hand the listener's own setting down.
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(GREETING_TIME))?;
        stream.set_write_timeout(Some(GREETING_TIME))?;
        Ok(serde_json::from_slice(&read_frame(&stream, GREETING)?)?)
    };
    let hello = match greet() {
        Ok(hello) if hello.magic == MAGIC => hello,
        _ => {
            tracing::warn!(%address, "somebody else has connected and is sent away");
            return Ok(());
        }
    };
    let size = joined.len() + 1;
    let place = hello.rank.checked_sub(1).and_then(|i| joined.get_mut(i));
    let problem = match &place {
        _ if hello.protocol != PROTOCOL => Some(format!(
            "it speaks protocol {} and the leader {PROTOCOL}",
            hello.protocol
        )),
        _ if hello.size != size => Some(format!(
            "the group has {} processes there and {size} at the leader",
            hello.size
        )),
        None => Some(format!(
            "its rank is {}, expected 1 to {}",
            hello.rank,
            size - 1
        )),
        Some(Some(_)) => Some(format!("there is a rank {} already", hello.rank)),
        Some(None) => facts.difference(&hello.facts),
    };
    let answer = Answer {
        refused: problem.clone(),
    };
    let answered = serde_json::to_vec(&answer)
        .map_err(io::Error::from)
        .and_then(|bytes| write_frame(&stream, &bytes));
    let rank = hello.rank;
    if let Some(problem) = problem {
        return Err(GroupError::Mismatch {
            rank,
            address,
            problem,
        });
    }
    let link = answered.and_then(|()| Link::over(stream, options.silence));
    let link = link.map_err(|error| GroupError::Lost {
        who: format!("rank {rank} at {address}"),
        problem: error.to_string(),
    })?;
    if let Some(place) = place {
        *place = Some(link);
    }
    Ok(())
}

impl Exchange for Star {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(
        &mut self,
        tensors: Vec<Tensor<3>>,
        numbers: &mut [f64],
    ) -> Result<Vec<Tensor<3>>, GroupError> {
        let mut part = Part {
            numbers: numbers.to_vec(),
            values: Vec::new(),
        };
        for tensor in &tensors {
            let values = tensor.clone().into_data().convert::<f32>();
            let values = values.try_to_vec::<f32>();
            let values = values.map_err(|error| GroupError::Device(format!("{error:?}")))?;
            part.values.extend(values);
        }
        match self.rank {
            0 => {
                let mut sums: Vec<f64> = part.values.iter().map(|x| f64::from(*x)).collect();
                for link in 0..self.links.len() {
                    let theirs = self.receive_part(link, &part)?;
                    let numbers = part.numbers.iter_mut().zip(theirs.numbers);
                    numbers.for_each(|(a, b)| *a += b);
                    let values = sums.iter_mut().zip(theirs.values);
                    values.for_each(|(a, b)| *a += f64::from(b));
                }
                part.values = sums.into_iter().map(|x| x as f32).collect();
                let bytes = part.bytes();
                for link in 0..self.links.len() {
                    self.send(link, &bytes)?;
                }
            }
            _ => {
                self.send(0, &part.bytes())?;
                part = self.receive_part(0, &part)?;
            }
        }
        numbers.copy_from_slice(&part.numbers);
        let mut rest = part.values.as_slice();
        let sums = tensors.iter().map(|tensor| {
            let dims = tensor.dims();
            let (own, others) = rest.split_at(dims.iter().product());
            rest = others;
            Tensor::from_data(TensorData::new(own.to_vec(), dims), &tensor.device())
        });
        Ok(sums.collect())
    }

    fn share(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        match self.rank {
            0 => {
                for link in 0..self.links.len() {
                    self.send(link, &bytes)?;
                }
                Ok(bytes)
            }
            _ => self.receive(0),
        }
    }
}

/// What one member gives to a sum.
struct Part {
    numbers: Vec<f64>,
    values: Vec<f32>,
}

impl Part {
    fn bytes(&self) -> Vec<u8> {
        let numbers = self.numbers.iter().flat_map(|x| x.to_le_bytes());
        let values = self.values.iter().flat_map(|x| x.to_le_bytes());
        numbers.chain(values).collect()
    }
}
