//! Groups over TCP on this machine: sums, refusals, members that are lost.
#![recursion_limit = "256"]

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use cartridges_ops::test_device;
use cartridges_train::{Exchange, Facts, GroupError, GroupOptions, Star, TrainConfig};

fn options() -> GroupOptions {
    GroupOptions {
        join: Duration::from_secs(10),
        silence: Duration::from_secs(1),
    }
}

fn facts(change: impl FnOnce(&mut TrainConfig)) -> Facts {
    let mut config = TrainConfig::default();
    change(&mut config);
    Facts::new("weights", "data", &config)
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn lead(listener: &TcpListener, size: usize) -> Result<Star, GroupError> {
    Star::lead(listener, size, &facts(|_| ()), options(), &mut || Ok(()))
}

#[test]
fn all_members_get_the_sum_in_f64_and_the_first_ones_bytes() {
    let (listener, address) = listen();
    // In f32, from left to right, the sum of the first three would be 0.
    let parts = [1.0e8, 1.0, -1.0e8, 0.25];
    let work = |mut star: Star| {
        let rank = star.rank();
        let device = test_device();
        let part = Tensor::<3>::from_floats([[[parts[rank], rank as f32]]], &device);
        let mut numbers = [rank as f64, 0.5];
        let sums = star
            .sum(vec![part.clone(), part * 2.0], &mut numbers)
            .unwrap();
        let bytes = star.share(vec![rank as u8 + 7; 3]).unwrap();
        let none = star.share(Vec::new()).unwrap();
        star.sum(Vec::new(), &mut []).unwrap();
        let read = |t: &Tensor<3>| t.clone().into_data().try_to_vec::<f32>().unwrap();
        (read(&sums[0]), read(&sums[1]), numbers, bytes, none)
    };
    let all: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..4)
            .map(|rank| {
                let (address, work) = (address.clone(), &work);
                scope.spawn(move || {
                    work(Star::join(&address, rank, 4, &facts(|_| ()), options()).unwrap())
                })
            })
            .collect();
        let first = work(lead(&listener, 4).unwrap());
        let others = others.into_iter().map(|other| other.join().unwrap());
        std::iter::once(first).chain(others).collect()
    });
    for found in all {
        let wanted = (
            vec![1.25, 6.0],
            vec![2.5, 12.0],
            [6.0, 2.0],
            vec![7; 3],
            Vec::new(),
        );
        assert_eq!(found, wanted);
    }
}

/// A member that asks with other facts, another size or another rank.
fn refused(ask: impl FnOnce(&str) -> Result<Star, GroupError> + Send, words: &[&str]) {
    let (listener, address) = listen();
    let (there, here) = thread::scope(|scope| {
        let other = scope.spawn(|| ask(&address).unwrap_err().to_string());
        let here = lead(&listener, 2).unwrap_err().to_string();
        (other.join().unwrap(), here)
    });
    for word in words {
        assert!(there.contains(word), "{there}");
        assert!(here.contains(word), "{here}");
    }
    assert!(
        there.contains("refuses") && here.contains("127.0.0.1"),
        "{there} {here}"
    );
}

#[test]
fn members_that_do_not_fit_are_refused_with_what_differs() {
    refused(
        |to| Star::join(to, 1, 2, &facts(|c| c.lr = 0.125), options()),
        &["lr is 0.125 there and 0.005 at the leader"],
    );
    let other = Facts::new("weights", "other data", &TrainConfig::default());
    refused(
        move |to| Star::join(to, 1, 2, &other, options()),
        &["data is \"other data\" there"],
    );
    refused(
        |to| Star::join(to, 1, 3, &facts(|_| ()), options()),
        &["3 processes there and 2"],
    );
    refused(
        |to| Star::join(to, 2, 2, &facts(|_| ()), options()),
        &["rank is 2, expected 1 to 1"],
    );
}

#[test]
fn strangers_are_sent_away_and_absent_members_counted() {
    let (listener, address) = listen();
    thread::scope(|scope| {
        let stranger = scope.spawn(|| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            Star::join(&address, 1, 2, &facts(|_| ()), options()).map(drop)
        });
        lead(&listener, 2).unwrap();
        stranger.join().unwrap().unwrap();
    });
    let impatient = GroupOptions {
        join: Duration::from_millis(50),
        ..options()
    };
    let error = Star::lead(&listener, 3, &facts(|_| ()), impatient, &mut || Ok(()));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("1 of 3 processes"), "{error}");
    drop(listener);
    let error = Star::join(&address, 1, 2, &facts(|_| ()), impatient);
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&address), "{error}");
}

#[test]
fn a_busy_member_is_waited_for_and_a_lost_one_is_named() {
    let (listener, address) = listen();
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            let mut star = Star::join(&address, 1, 2, &facts(|_| ()), options()).unwrap();
            // Longer than the silence that is allowed.
            thread::sleep(Duration::from_millis(1500));
            star.sum(Vec::new(), &mut [1.0]).unwrap();
        });
        let mut star = lead(&listener, 2).unwrap();
        let mut numbers = [2.0];
        star.sum(Vec::new(), &mut numbers).unwrap();
        assert_eq!(numbers, [3.0]);
        star.sum(Vec::new(), &mut numbers).unwrap_err().to_string()
    });
    assert!(error.contains("rank 1 is gone: it closed"), "{error}");
}

#[test]
fn a_member_that_hangs_is_lost_after_the_silence() {
    let (listener, address) = listen();
    let hello = serde_json::json!({
        "magic": "cartridges-train", "protocol": 1, "rank": 1, "size": 2, "facts": facts(|_| ()),
    });
    // It greets properly and never says anything again.
    let mut stream = TcpStream::connect(&address).unwrap();
    let hello = hello.to_string();
    let length = (hello.len() as u32).to_le_bytes();
    stream
        .write_all(&[&length, hello.as_bytes()].concat())
        .unwrap();
    let mut star = lead(&listener, 2).unwrap();
    let begin = Instant::now();
    let error = star.sum(Vec::new(), &mut [1.0]).unwrap_err().to_string();
    assert!(
        error.contains("rank 1 is gone: no sign of life for 1s"),
        "{error}"
    );
    assert!(begin.elapsed() < Duration::from_secs(5));
}
