//! Many clients at once.

use super::*;

/// Waits until nothing runs or waits, and gives the load.
fn at_rest(server: &Running) -> Value {
    let begin = Instant::now();
    loop {
        let load = server.get("/v1/load").json();
        if load["running"] == 0 && load["queued"] == 0 {
            return load;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{load}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn many_clients_that_come_go_and_err_leave_nothing_behind() {
    let server = start(place(), &["--max-batch", "8", "--kv-tokens", "1024"]);
    let (home, model) = (server.home.path(), server.home.path().join("model"));
    lamp(&model, &home.join("shelf/lamp"));
    accent(&model, &home.join("adapters/accent"));
    let question = |i: usize| {
        let adapter = i.is_multiple_of(3).then_some("accent");
        let cartridges = match i % 2 {
            0 => json!([{"id": "lamp", "source": "local"}]),
            _ => json!([]),
        };
        with(
            hello(),
            json!({"cartridges": cartridges, "adapter": adapter, "max_tokens": 4 + i % 7,
                "messages": [{"role": "user", "content": "word ".repeat(1 + 9 * (i % 5))}]}),
        )
    };
    let wanted: Vec<String> = (0..70)
        .map(|i| server.post("/v1/chat/completions", &question(i)).text())
        .collect();
    let storm = |rounds: std::ops::Range<usize>| {
        std::thread::scope(|scope| {
            for client in 0..64 {
                let (server, wanted, rounds) = (&server, &wanted, rounds.clone());
                scope.spawn(move || {
                    for round in rounds {
                        let i = (client * 31 + round * 17) % 70;
                        visit(server, (client + round) % 8, question(i), &wanted[i]);
                    }
                });
            }
        });
        let load = at_rest(&server);
        // Nothing is held but the cartridge and stored prompts.
        assert_eq!(load["kv_rows_used"], load["kv_rows_kept"], "{load}");
        assert!(load["kv_rows_used"].as_u64() <= load["kv_rows_total"].as_u64());
    };
    // 64 × 32 = 2048 requests; memory is looked at once the first quarter has filled the caches.
    storm(0..8);
    let before = resident_kib(&server);
    storm(8..32);
    if let (Some(before), Some(after)) = (before, resident_kib(&server)) {
        assert!(after < before + 32 * 1024, "{before} KiB became {after}");
    }
    // Nothing is lost: the same memory serves the largest request that ever fitted.
    let large = with(
        hello(),
        json!({"max_tokens": 900, "temperature": 1, "seed": 1}),
    );
    assert_eq!(server.post("/v1/chat/completions", &large).status, 200);
}

/// One of the ways in which clients come and go.
fn visit(server: &Running, manner: usize, question: Value, wanted: &str) {
    let path = "/v1/chat/completions";
    match manner {
        // Gone before the answer, in its middle or in the request's.
        0 => {
            let long = with(question, json!({"max_tokens": 400, "stream": true}));
            let mut stream = server.send(&server.request(path, None, &long.to_string()));
            let mut some = [0; 16];
            let _ = stream.read(&mut some);
        }
        1 => {
            let request = server.request(path, None, &question.to_string());
            drop(server.send(&request[..request.len() / 2]));
        }
        2 => {
            let bad = server.request(path, None, "{\"no\": ");
            assert_eq!(server.exchange(&bad).status, 400);
        }
        // A slow reader gets all of it.
        3 => {
            let request = server.request(path, None, &question.to_string());
            let (mut stream, mut bytes) = (server.send(&request), Vec::new());
            let mut some = [0; 64];
            loop {
                match stream.read(&mut some).unwrap() {
                    0 => break,
                    n => bytes.extend_from_slice(&some[..n]),
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(Reply::read(&bytes).text(), wanted);
        }
        _ => assert_eq!(server.post(path, &question).text(), wanted),
    }
}

/// Memory of the server, where the system tells.
fn resident_kib(server: &Running) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
