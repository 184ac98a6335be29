//! The program's own commands as clients of a server.

use super::*;

#[test]
fn self_study_can_be_written_by_a_server() {
    let server = start(place(), &[]);
    let home = server.home.path();
    let write = |name: &str, content: &str| {
        let path = home.join(name);
        std::fs::write(&path, content).unwrap();
        text(&path).to_owned()
    };
    let corpus = write(
        "page.html",
        &format!("<p>{}</p>", "The lamp is lit. ".repeat(40)),
    );
    let study = write(
        "study.toml",
        "num_conversations = 4\nbatch_size = 2\nmax_completion_tokens_a = 6\nverbatim_tokens = 16\n\
         verbatim_stride = 12\n\
         max_completion_tokens_b = 7\nchunker = { min_tokens_per_chunk = 20, \
         max_tokens_per_chunk = 60 }\n",
    );
    let servers = write(
        "servers.toml",
        &format!(
            "type = \"tokasaurus\"\nurls = [\"http://{}\"]\n",
            server.address
        ),
    );
    let (model, out) = (home.join("model"), home.join("study"));
    let run = |client: &str| {
        program(&server.home)
            .args(["synthesize", "--model", text(&model), "--corpus", &corpus])
            .args(["--config", &study, "--client", client, "--out", text(&out)])
            .output()
            .unwrap()
    };
    let output = run(&servers);
    let told = utf8(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("no verbatim pieces"), "{told}");
    let dataset = out.join("dataset.parquet");
    let made = cartridges_study::parquet::read_conversations(&dataset, None).unwrap();
    assert_eq!(made.len(), 4);
    for conversation in &made {
        assert!(conversation.system_prompt.contains("The lamp is lit."));
        let answer = conversation.messages.last().unwrap();
        let ids = answer.token_ids.as_ref().unwrap();
        let top = answer.top_logprobs.as_ref().unwrap();
        assert!(!ids.is_empty() && top.shape.0 == ids.len(), "{answer:?}");
    }
    let nobody = write(
        "nobody.toml",
        "type = \"openai\"\nurls = [\"http://127.0.0.1:9\"]\n",
    );
    let output = run(&nobody);
    assert_eq!(output.status.code(), Some(1));
    assert!(utf8(&output.stderr).contains("127.0.0.1:9"), "{output:?}");
}

#[test]
fn a_server_is_asked_what_this_process_is_asked() {
    let home = place();
    let model = home.path().join("model");
    std::fs::create_dir_all(home.path().join("shelf")).unwrap();
    lamp(&model, &home.path().join("shelf/lamp"));
    let server = start(home, &[]);
    let home = server.home.path();
    let list = json!({ "questions": [
        { "id": "a", "question": "Who lit the lamp?", "answers": ["nobody"] },
        { "id": "b", "question": "When?", "answers": ["at noon"] },
    ]});
    let questions = home.join("questions.json");
    std::fs::write(&questions, list.to_string()).unwrap();
    let servers = home.join("servers.toml");
    let toml = format!(
        "type = \"tokasaurus\"\nurls = [\"http://{}\"]\ncartridges = [{{ id = \"lamp\", source = \
         \"local\" }}]\n",
        server.address
    );
    std::fs::write(&servers, toml).unwrap();
    let cartridge = home.join("shelf/lamp");
    let json = works(&[
        "eval",
        "--model",
        text(&model),
        "--questions",
        text(&questions),
        "--skip-no-document",
        "--cartridge",
        text(&cartridge),
        "--client",
        text(&servers),
        "--max-new-tokens",
        "6",
        "--json",
    ]);
    let report: Value = serde_json::from_str(&json).unwrap();
    let rows = &report["rows"];
    assert_eq!(rows[1]["condition"], "lamp at the server");
    assert_eq!(rows[1]["kind"], "cartridge");
    for question in 0..2 {
        let answer = |row: usize| &rows[row]["questions"][question]["generated"];
        assert!(answer(0).as_str().is_some_and(|words| !words.is_empty()));
        assert_eq!(answer(0), answer(1));
    }
    assert_eq!(rows[0]["scores"], rows[1]["scores"]);
    assert!(rows[0]["nll"].is_object() && rows[1]["nll"].is_null());
}
