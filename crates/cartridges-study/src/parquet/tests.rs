use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::*;
use crate::conversation::{Conversation, ConversationKind, Message, Metadata, Role, ToolCall};
use crate::top_logprobs::{DenseTopLogprobs, FlatTopLogprobs};

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(name)
}

/// The worked example of the reference description, section 12.1, flattened at 0.99.
fn flat() -> FlatTopLogprobs {
    let probabilities = [0.90f64, 0.08, 0.015, 0.995, 0.003, 0.001, 0.40, 0.30, 0.10];
    DenseTopLogprobs {
        k: 3,
        token_ids: vec![11, 12, 13, 21, 22, 23, 31, 32, 33],
        logprobs: probabilities.iter().map(|p| p.ln() as f32).collect(),
    }
    .flatten(0.99)
    .unwrap()
}

/// What the fixtures hold, as written by pyarrow from the reference's records.
fn reference_conversation(i: usize) -> Conversation {
    let system_prompt = format!("The info number {i}.");
    Conversation {
        messages: vec![
            Message {
                content: format!("Question {i}?"),
                role: Role::User,
                token_ids: Some(vec![5, 6, 7]),
                top_logprobs: None,
            },
            Message {
                content: format!("Answer {i}."),
                role: Role::Assistant,
                token_ids: Some(vec![11, 21, 31]),
                top_logprobs: Some(flat()),
            },
        ],
        metadata: Metadata {
            seed_prompt: format!("Ask {i}"),
            initial_system_prompt: system_prompt.clone(),
            ..Metadata::default()
        },
        system_prompt,
        conversation_type: Some("todo".to_owned()),
    }
}

fn full_conversation(i: usize) -> Conversation {
    let mut conversation = reference_conversation(i);
    conversation.metadata.kind = Some(ConversationKind::Verbatim);
    conversation.metadata.seed_type = Some("verbatim".to_owned());
    conversation.metadata.resource = Some("Häfen 😀.txt".to_owned());
    conversation.metadata.finish_reasons = Some(vec!["stop".to_owned(), "length".to_owned()]);
    conversation.metadata.thinking = Some(vec![true, false]);
    conversation.metadata.task = Some(i as u64);
    if i.is_multiple_of(3) {
        conversation.messages[1].token_ids = None;
        conversation.messages[1].top_logprobs = None;
        conversation.conversation_type = None;
        conversation.metadata = Metadata::default();
    }
    if i.is_multiple_of(5) {
        conversation.messages.clear();
    }
    conversation
}

/// Writes rows as they are, also those that the writer refuses.
fn write_unchecked(path: &Path, rows: &[Conversation]) {
    let schema = schema::conversation_schema(false);
    let batch =
        RecordBatch::try_new(schema.clone(), writer::columns(rows, false).unwrap()).unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn files_of_the_reference_are_read() {
    let rows = read_conversations(&fixture("reference_conversations.parquet"), None).unwrap();
    let expected: Vec<Conversation> = (0..4).map(reference_conversation).collect();
    assert_eq!(rows, expected);
    let first = read_conversations(&fixture("reference_conversations.parquet"), Some(2)).unwrap();
    assert_eq!(first, expected[..2]);
}

#[test]
fn other_widths_orders_and_missing_fields_are_read() {
    // int32 and int64 exchanged, float64, large lists and strings, extra columns and children, a
    // struct of nulls, no `type`, no `tool_calls`.
    let rows = read_conversations(&fixture("wide_conversations.parquet"), None).unwrap();
    for (i, row) in rows.into_iter().enumerate() {
        let mut expected = reference_conversation(i);
        expected.conversation_type = None;
        expected.metadata.initial_system_prompt.clear();
        assert_eq!(row, expected);
    }
    // Columns of type null.
    let rows = read_conversations(&fixture("eval_conversations.parquet"), None).unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[2].messages[1].content, "A2");
    assert_eq!(rows[2].messages[1].token_ids, None);
    assert_eq!(rows[2].messages[1].top_logprobs, None);
    assert_eq!(rows[2].metadata, Metadata::default());
}

#[test]
fn tool_calls_of_the_reference_are_read() {
    let rows = read_conversations(&fixture("tool_conversations.parquet"), None).unwrap();
    let call = &rows[0].metadata.tool_calls[0];
    assert_eq!(call.name, "search");
    assert!(call.input.contains("gates") && call.input.contains("top_k"));
    assert_eq!(call.output, "nine");
    assert!(call.success);
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dataset.parquet");
    // More than one batch and more than one row group.
    let mut rows: Vec<Conversation> = (0..1100).map(full_conversation).collect();
    assert_eq!(write_conversations(&path, &rows).unwrap(), 1100);
    assert_eq!(read_conversations(&path, None).unwrap(), rows);
    rows[7].metadata.tool_calls.push(ToolCall {
        name: "n".to_owned(),
        input: "{}".to_owned(),
        output: "o".to_owned(),
        success: true,
        raw_request: "r".to_owned(),
    });
    write_conversations(&path, &rows).unwrap();
    assert_eq!(read_conversations(&path, None).unwrap(), rows);
    assert_eq!(write_conversations(&path, &[]).unwrap(), 0);
    assert!(read_conversations(&path, None).unwrap().is_empty());
}

#[test]
fn the_schema_is_the_references() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dataset.parquet");
    write_conversations(&path, &[reference_conversation(0)]).unwrap();
    let leaves = |path: &Path| {
        let file = std::fs::File::open(path).unwrap();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        assert_eq!(
            builder.metadata().row_group(0).column(0).compression(),
            parquet::basic::Compression::SNAPPY
        );
        let leaves: Vec<String> = builder
            .parquet_schema()
            .columns()
            .iter()
            .map(|c| {
                format!(
                    "{} {:?} {:?}",
                    c.path().string(),
                    c.physical_type(),
                    c.logical_type_ref()
                )
            })
            .collect();
        leaves
    };
    let ours = leaves(&path);
    let theirs = leaves(&fixture("reference_conversations.parquet"));
    let common: Vec<&String> = ours.iter().filter(|leaf| theirs.contains(leaf)).collect();
    // Every leaf of the reference, in its order; ours add metadata children.
    assert_eq!(common, theirs.iter().collect::<Vec<_>>());
    assert!(
        ours.iter()
            .all(|l| theirs.contains(l) || l.starts_with("metadata."))
    );
    assert!(ours[0].starts_with("messages.list.element.content "));
}

#[test]
fn bad_values_are_named_by_file_row_and_field() {
    type Change = fn(&mut FlatTopLogprobs);
    let cases: [(&str, Change); 7] = [
        ("messages[1].top_logprobs.token_idx", |t| t.token_idx[6] = 3),
        ("token_id has 6", |t| {
            t.token_id.pop();
        }),
        ("logprobs has 8", |t| t.logprobs.push(-1.0)),
        ("entry 2", |t| t.logprobs[2] = f32::NAN),
        ("entry 2", |t| t.logprobs[2] = 0.5),
        ("no room", |t| t.shape = (3, 2)),
        ("no room", |t| t.shape = (1, 3)),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.parquet");
    for (expected, change) in cases {
        let mut rows = vec![reference_conversation(0), reference_conversation(1)];
        change(rows[1].messages[1].top_logprobs.as_mut().unwrap());
        write_unchecked(&path, &rows);
        let mut reader = ConversationReader::open(&path).unwrap();
        assert!(reader.next().unwrap().is_ok());
        let error = reader.next().unwrap().unwrap_err().to_string();
        assert!(reader.next().is_none());
        for part in ["bad.parquet", "row 1", "messages[1]", expected] {
            assert!(error.contains(part), "{part}: {error}");
        }
        // The writer does not write what cannot be read.
        let good = folder.path().join("good.parquet");
        let error = write_conversations(&good, &rows).unwrap_err().to_string();
        assert!(error.contains("conversation 1"), "{error}");
        assert!(!good.exists());
    }
}

#[test]
fn very_negative_and_infinite_logprobs_pass() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let mut row = reference_conversation(0);
    let top = row.messages[1].top_logprobs.as_mut().unwrap();
    top.logprobs[2] = -1000.0;
    top.logprobs[6] = f32::NEG_INFINITY;
    top.logprobs[3] = 1e-6;
    write_conversations(&path, std::slice::from_ref(&row)).unwrap();
    assert_eq!(read_conversations(&path, None).unwrap(), [row]);
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let message = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        ConversationReader::open(&path).err().unwrap().to_string()
    };
    assert!(message(b"").contains("0 bytes"));
    assert!(message(b"PK\x03\x04 and so on, not parquet").contains("begin"));
    assert!(message(b"PAR1 and then it was cut off").contains("end"));
    assert!(message(b"PAR1\xff\xff\xff\x7fPAR1").contains("footer"));
    let error = ConversationReader::open(&folder.path().join("none"))
        .err()
        .unwrap();
    assert!(matches!(error, ConversationFileError::Io { .. }));
    // Parquet, but of something else.
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(vec![
        arrow::datatypes::Field::new("text", arrow::datatypes::DataType::Utf8, true),
    ]));
    let file = std::fs::File::create(&path).unwrap();
    ArrowWriter::try_new(file, schema, None)
        .unwrap()
        .close()
        .unwrap();
    let error = ConversationReader::open(&path).err().unwrap().to_string();
    assert!(
        error.contains("`messages`") && error.contains("text"),
        "{error}"
    );
}

/// Reads all rows; only that it ends without a panic matters.
fn read_through(path: &Path) -> bool {
    read_conversations(path, None).is_ok()
}

#[test]
fn every_truncation_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.parquet");
    let bytes = std::fs::read(fixture("reference_conversations.parquet")).unwrap();
    for length in (0..bytes.len()).step_by(7) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(!read_through(&path), "{length}");
    }
}

#[test]
fn few_bytes_cannot_claim_billions_of_entries() {
    // Thirty million empty conversations are a few hundred bytes of run lengths.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.parquet");
    let schema = schema::conversation_schema(false);
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_data_page_row_count_limit(usize::MAX)
        .set_max_row_group_row_count(None)
        .build();
    let columns = schema
        .fields()
        .iter()
        .map(|f| arrow::array::new_null_array(f.data_type(), 3_000_000))
        .collect();
    let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
    for _ in 0..10 {
        writer.write(&batch).unwrap();
    }
    writer.close().unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    let error = ConversationReader::open(&path).err().unwrap().to_string();
    assert!(error.contains("claims"), "{size} bytes: {error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn mutated_files_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_footer in any::<bool>(),
        name in prop::sample::select(vec!["reference_conversations.parquet", "eval_conversations.parquet"]),
    ) {
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        let from = if in_footer {
            let n = bytes.len();
            let tail: [u8; 4] = bytes[n - 8..n - 4].try_into().unwrap();
            n - 8 - u32::from_le_bytes(tail) as usize
        } else {
            0
        };
        let length = bytes.len() - from;
        for (at, value) in changes {
            bytes[from + at.index(length)] = value;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        read_through(file.path());
    }

    #[test]
    fn random_bytes_are_refused(body in proptest::collection::vec(any::<u8>(), 0..200), framed in any::<bool>()) {
        let mut bytes = body.clone();
        if framed {
            bytes = [b"PAR1", &body[..], &(body.len() as u32).to_le_bytes(), b"PAR1"].concat();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        prop_assert!(!read_through(file.path()));
    }
}
