//! What a foreign file may hold, and that none of it is lost, invented or kept in memory.

use std::io::{self, Cursor, Read, Write};

use flate2::write::GzEncoder;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::Value;

use super::value::ValueScan;
use super::{Chunk, Compression, Fault, Format, Limits, ReadError, Records};

/// A record as a test sees it: its row, its text and what is wrong with it.
type Seen = (i64, String, Option<Fault>);

fn small_limits(record_bytes: usize, chunk_bytes: usize) -> Limits {
    Limits { record_bytes, chunk_bytes, ..Limits::default() }
}

/// The records of a source up to its end or its error.
fn drain(source: impl Read, format: Format, limits: Limits) -> (Vec<Seen>, Option<ReadError>) {
    let mut records = Records::new(source, Compression::None, format, limits).unwrap();
    let mut seen = Vec::new();
    loop {
        match records.next_chunk() {
            Ok(Some(chunk)) => seen.extend(seen_of(&chunk)),
            Ok(None) => return (seen, None),
            Err(error) => {
                assert!(matches!(records.next_chunk(), Ok(None)), "an error comes once");
                return (seen, Some(error));
            }
        }
    }
}

fn seen_of(chunk: &Chunk) -> Vec<Seen> {
    assert!(!chunk.records.is_empty());
    let text = |record| String::from_utf8_lossy(chunk.bytes(record)).into_owned();
    chunk.records.iter().map(|record| (record.row, text(record), record.fault)).collect()
}

fn read(bytes: impl AsRef<[u8]>, format: Format) -> Vec<Seen> {
    let (seen, error) = drain(Cursor::new(bytes), format, Limits::default());
    assert!(error.is_none(), "{error:?}");
    seen
}

/// Records without a fault, numbered from 1.
fn good(texts: &[&str]) -> Vec<Seen> {
    (1..).zip(texts).map(|(row, text)| (row, (*text).to_owned(), None)).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Hands its bytes out in pieces of the given sizes, over and over, and is interrupted now and then.
struct Dribble<'a> {
    bytes: &'a [u8],
    sizes: &'a [usize],
    turn: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        if self.turn.is_multiple_of(7) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = self.sizes[self.turn % self.sizes.len()].min(buffer.len());
        self.bytes.read(&mut buffer[..most])
    }
}

#[test]
fn lines_are_records_and_keep_their_numbers() {
    let seen = read("{\"a\":1}\r\n\r\n  \t\n  {\"a\":2}\n\nno json\r\n{\"a\":3}", Format::Lines);
    let expected = [(1, "{\"a\":1}"), (4, "{\"a\":2}"), (6, "no json"), (7, "{\"a\":3}")];
    assert_eq!(seen, expected.map(|(row, text)| (row, text.to_owned(), None)));
    assert_eq!(read("{\"a\":1}\r", Format::Lines), good(&["{\"a\":1}"]));
    assert_eq!(read("\n\n{\"a\":1}\n", Format::Auto), [(3, "{\"a\":1}".to_owned(), None)]);
}

#[test]
fn nothing_has_no_records() {
    for bytes in ["", " ", "\n\r\n \t\n", "\u{feff}", "\u{feff} \n", "[]", " [ ] \n[]\n"] {
        assert_eq!(read(bytes, Format::Auto), [], "{bytes:?}");
    }
    assert_eq!(read("[]", Format::Lines), good(&["[]"]));
    assert_eq!(drain(" \n".repeat(100_000).as_bytes(), Format::Auto, small_limits(8, 16)).0, []);
}

#[test]
fn a_byte_order_mark_is_dropped_at_the_start_only() {
    for format in [Format::Auto, Format::Lines, Format::Documents] {
        assert_eq!(read("\u{feff}{\"a\":1}", format), good(&["{\"a\":1}"]));
    }
    assert_eq!(read("\u{feff}[1]", Format::Auto), good(&["1"]));
    assert_eq!(read("1\n\u{feff}2", Format::Lines), good(&["1", "\u{feff}2"]));
}

#[test]
fn documents_are_records_however_they_are_broken_into_lines() {
    let pretty = "{\n  \"a\": {\n    \"b\": [1, 2]\n  }\n}";
    assert_eq!(
        read(format!("{pretty}\n{pretty}{{}}\r\n{pretty}\n"), Format::Auto),
        good(&[pretty, pretty, "{}", pretty])
    );
    let scalars = "1 -2.5e3\ttrue\nnull\"a b\"false{}\"\"";
    assert_eq!(
        read(scalars, Format::Documents),
        good(&["1", "-2.5e3", "true", "null", "\"a b\"", "false", "{}", "\"\""])
    );
}

#[test]
fn elements_of_arrays_are_records() {
    let texts = [
        r#"{"a":"]}[{,\\\"]","b":"\\"}"#,
        "[[1],[2,[]]]",
        "[]",
        r#""жук 🐞 \u005d""#,
        "12",
        "null",
        "{\"ключ\": [\"]\"]}",
    ];
    for joined in [texts.join(","), texts.join(" ,\n  ")] {
        assert_eq!(read(format!("[{joined}]"), Format::Auto), good(&texts));
        assert_eq!(read(format!("\n [\n{joined}\n]\n"), Format::Auto), good(&texts));
    }
    assert_eq!(read("[1,2][3]\n[]\n[ 4 ]{\"a\":5}6", Format::Auto), good(&["1", "2", "3", "4", "{\"a\":5}", "6"]));
}

#[test]
fn each_value_tells_the_format() {
    // Each of these is two records by its own format.
    for lines in ["{\"a\":\"{\"}\r\n{\"b\":[", "\"a\n\"b", "id,name\n1,x", "{\"cut\": \"o\n{\"a\":1}", "1 2\n3 4"] {
        assert_eq!(read(lines, Format::Auto), read(lines, Format::Lines), "{lines:?}");
        assert_eq!(read(lines, Format::Auto).len(), 2, "{lines:?}");
    }
    for documents in ["{\n}\n{}", "  \n{\"a\":[1,\r\n2]}{}", "[1\n,2]", "[{},{}]"] {
        assert_eq!(read(documents, Format::Auto), read(documents, Format::Documents), "{documents:?}");
        assert_eq!(read(documents, Format::Auto).len(), 2, "{documents:?}");
    }
    assert_eq!(read("{\"a\":[1,", Format::Auto), good(&["{\"a\":[1,"]));
    let long_first = format!("{{\"a\":[{}\n{{}}\n", "1,".repeat(50));
    assert_eq!(drain(long_first.as_bytes(), Format::Auto, small_limits(60, 40)).0.len(), 2);
    assert_eq!(drain(long_first.as_bytes(), Format::Auto, small_limits(200, 40)).0.len(), 2);
    assert_eq!(read("{}{}\n{} {}\n{\n", Format::Auto), good(&["{}", "{}", "{}", "{}", "{"]));
}

#[test]
fn a_stray_byte_is_a_record_of_its_own_and_a_stray_comma_is_none() {
    let cases: [(&str, &[&str]); 9] = [
        ("{\"a\":1}}\n{\"b\":2}", &["{\"a\":1}", "}", "{\"b\":2}"]),
        ("{\"a\":1},{\"b\":2}", &["{\"a\":1}", "{\"b\":2}"]),
        ("[{\"a\":1}{\"b\":2}]", &["{\"a\":1}", "{\"b\":2}"]),
        ("[{\"a\":1},]\n[1]", &["{\"a\":1}", "1"]),
        ("[{\"a\":1},,2]", &["{\"a\":1}", "2"]),
        ("[{\"a\":1}}", &["{\"a\":1}", "}"]),
        ("[{\"a\":1}]]", &["{\"a\":1}", "]"]),
        ("{\"a\":1} жук", &["{\"a\":1}", "жук"]),
        ("{\"a\":1}\u{0}", &["{\"a\":1}", "\u{0}"]),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read(bytes, Format::Documents), good(expected), "{bytes:?}");
    }
}

#[test]
fn one_bad_line_costs_no_other() {
    let lines: Vec<String> = (1..=1_000).map(|number| format!("{{\"i\":{number}}}")).collect();
    let first_lines = [
        "[INFO] collector started",
        "[2026-01-01 00:00:00] started",
        "[2026-11-26]",
        "[1234] a process",
        "# header",
        "{",
        "[{",
        "{\"i\":0,\"b\":\"abc",
        "{\"i\":0,\"b\":{\"c\":",
        "{\"i\":0,\"b\":[",
        "[1,2],\"x\":1}",
        "{\"i\":0}}",
        "{\"i\":0} and more",
        "[{\"i\":0} and more",
    ];
    for bad in first_lines {
        for at in [0, 500, 1_000] {
            let (before, after) = lines.split_at(at);
            let all = [before, &[bad.to_owned()], after].concat();
            let seen = read(all.join("\n"), Format::Auto);
            let expected: Vec<Seen> = (1..).zip(&all).map(|(row, text)| (row, text.clone(), None)).collect();
            assert!(seen == expected, "{bad} at {at}: {:?} …", &seen[at.saturating_sub(1)..][..2]);
        }
    }
    for (first, records) in [("[{\"i\":0}]", 1), ("[]", 0), ("{\"i\":0}{\"i\":0}", 2), ("[1767225600, {\"i\":0}]", 2)] {
        let seen = read(format!("{first}\n{}", lines.join("\n")), Format::Auto);
        assert_eq!(seen.len(), 1_000 + records, "{first}");
        let rows: Vec<i64> = seen.iter().map(|(row, ..)| *row).collect();
        assert!(rows.is_sorted_by(|one, other| one < other), "{first}");
    }
}

#[test]
fn a_damaged_document_costs_no_other() {
    let pretty = "{\n  \"a\": {\n    \"b\": [1, 2]\n  }\n}";
    for bad in [&pretty[..20], "{\n  \"a\": {\n    \"b\": [1, 2]\n  ]\n}", "{\n  \"a\": \"x\ny\"\n}"] {
        assert_eq!(read([pretty, bad, pretty].join("\n"), Format::Auto), good(&[pretty, bad, pretty]));
        let indented = |text: &str| format!("  {}", text.replace('\n', "\n  "));
        let array = format!("[\n{}\n]", [pretty, bad, pretty].map(indented).join(",\n"));
        let seen = read(array, Format::Auto);
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert_eq!(
            (&seen[0].1, &seen[2].1),
            (&indented(pretty).trim().to_owned(), &indented(pretty).trim().to_owned())
        );
    }
    // What is cut off before a value takes the next record for that value.
    for (bad, records) in [("{\"a\":{\"b\":1}", 4), ("{\"a\":\"x}", 4), ("xyz", 4), ("{\"a\":", 3)] {
        let seen = read(["{\"a\":1}", bad, "{\"a\":2}{\"a\":3}"].concat(), Format::Auto);
        assert_eq!((seen.len(), seen[records - 1].1.as_str()), (records, "{\"a\":3}"), "{bad}");
        let seen = read(format!("[{{\"a\":1}},{bad},{{\"a\":2}},{{\"a\":3}}]"), Format::Auto);
        assert_eq!(seen.last().map(|(_, text, _)| text.as_str()), Some("{\"a\":3}"), "{bad} {seen:?}");
    }
}

#[test]
fn a_damaged_value_ends_at_the_same_byte_however_its_line_comes() {
    let bytes = b"{]}{\"aa\":null}";
    let one_by_one = Dribble { bytes, sizes: &[1], turn: 0 };
    let (whole, _) = drain(&bytes[..], Format::Auto, small_limits(14, 99));
    assert_eq!(drain(one_by_one, Format::Auto, small_limits(14, 1)).0, whole);
}

#[test]
fn damage_after_damage_takes_no_time() {
    for piece in ["{\"a\":\n", "[\n", "[{\"a\":\n", "{\"a\":{\"b\":1}", "{\"a\":[", "[{\"a\":\"x},"] {
        let bytes = piece.repeat((2 << 20) / piece.len());
        assert_eq!(solid(&kept(bytes.as_bytes(), Format::Auto, Limits::default())), solid(bytes.as_bytes()), "{piece}");
    }
}

#[test]
fn the_blanks_before_a_line_are_kept_for_a_record_that_is_none() {
    let bytes = b"{\"a\":1}\n \t\r no json \r\n\r{\"b\":2}\n";
    let mut records = Records::new(&bytes[..], Compression::None, Format::Auto, Limits::default()).unwrap();
    let chunk = records.next_chunk().unwrap().unwrap();
    let texts: Vec<_> = chunk.records.iter().map(|record| chunk.indented_text(record).unwrap()).collect();
    assert_eq!(texts, ["{\"a\":1}", " \t\r no json ", "\r{\"b\":2}"]);
    assert_eq!(chunk.text(&chunk.records[2]), Some("{\"b\":2}"));
}

/// All bytes of all records.
fn kept(bytes: &[u8], format: Format, limits: Limits) -> Vec<u8> {
    let mut records = Records::new(bytes, Compression::None, format, limits).unwrap();
    let mut kept = Vec::new();
    while let Some(chunk) = records.next_chunk().unwrap() {
        kept.extend(chunk.records.iter().flat_map(|record| chunk.bytes(record).to_vec()));
    }
    kept
}

/// Without the bytes that may be between records.
fn solid(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| !b" \t\r\n[],".contains(byte)).collect()
}

#[test]
fn a_file_cut_off_anywhere_loses_no_byte() {
    let sample = "\u{feff} [ {\"a\":\"]\\\"}\\\\\", \"ж\": [1,{}]} ,\r\n\"x y\" ,[ ], -1 ]\n{\n \"b\" :null}7 } x";
    for format in [Format::Auto, Format::Documents, Format::Lines] {
        for cut in BYTES_OF_MARK..=sample.len() {
            let bytes = &sample.as_bytes()[..cut];
            let kept = kept(bytes, format, small_limits(1024, 8));
            assert_eq!(solid(&kept), solid(&bytes[BYTES_OF_MARK..]), "{format:?} {cut}");
        }
    }
}

const BYTES_OF_MARK: usize = 3;

#[test]
fn what_is_not_utf8_is_no_text_and_is_kept() {
    for (format, bytes) in [
        (Format::Lines, &b"{\"a\":1}\n{\"a\":\"\xff\xfe\"}\n{\"a\":\"\xd0\xb6\"}"[..]),
        (Format::Auto, &b"[{\"a\":1},{\"a\":\"\xff\xfe\"},{\"a\":\"\xd0\xb6\"}]"[..]),
    ] {
        let mut records = Records::new(bytes, Compression::None, format, Limits::default()).unwrap();
        let chunk = records.next_chunk().unwrap().unwrap();
        let texts: Vec<_> = chunk.records.iter().map(|record| chunk.text(record)).collect();
        assert_eq!(texts, [Some("{\"a\":1}"), None, Some("{\"a\":\"ж\"}")]);
        assert_eq!(chunk.bytes(&chunk.records[1]), b"{\"a\":\"\xff\xfe\"}");
    }
    assert_eq!(read(b"{} \xff", Format::Documents).len(), 2);
}

#[test]
fn a_record_is_too_large_by_its_own_length() {
    let limits = small_limits(10, 1 << 20);
    let (fits, over) = ("[23456789]", "[234567890]");
    let too_large = |row| (row, over[..10].to_owned(), Some(Fault::TooLarge { bytes: 11 }));
    for chunk_bytes in [1, 4, 11, 1000] {
        let limits = Limits { chunk_bytes, ..limits };
        for line_break in ["\n", "\r\n"] {
            let bytes = [fits, over, fits, over, fits].join(line_break);
            let (seen, _) = drain(bytes.as_bytes(), Format::Lines, limits);
            let fitting = |row| (row, fits.to_owned(), None);
            assert_eq!(seen, [fitting(1), too_large(2), fitting(3), too_large(4), fitting(5)], "{chunk_bytes}");
        }
        let bytes = format!("[{fits},{over},{fits},{over}]");
        let (seen, _) = drain(bytes.as_bytes(), Format::Auto, limits);
        assert_eq!(seen[1], too_large(2));
        assert_eq!(seen[2], (3, fits.to_owned(), None));
        assert_eq!(seen[3], too_large(4));
        let (seen, _) = drain(&b"{}} and so much more"[..], Format::Documents, limits);
        assert_eq!(seen[1], (2, "} and so m".to_owned(), Some(Fault::TooLarge { bytes: 18 })));
    }
    let long = format!("[\"{}", "ж".repeat(2000));
    let (seen, _) = drain(long.as_bytes(), Format::Auto, small_limits(3000, 100));
    assert_eq!(
        seen,
        [(1, String::from_utf8_lossy(&long.as_bytes()[1..1025]).into_owned(), Some(Fault::TooLarge { bytes: 4001 }))]
    );
}

/// The records of a source that is far larger than what may be held of it.
fn drain_within(most_bytes: usize, source: impl Read, format: Format, limits: Limits) -> Vec<Seen> {
    let mut records = Records::new(source, Compression::None, format, limits).unwrap();
    let mut seen = Vec::new();
    while let Some(chunk) = records.next_chunk().unwrap() {
        let held = records.held_bytes() + chunk.len();
        assert!(held <= most_bytes, "{held} bytes are held");
        seen.extend(seen_of(&chunk));
    }
    assert!(records.held_bytes() <= most_bytes);
    seen
}

#[test]
fn a_line_of_100_megabytes_is_counted_and_let_go() {
    const LINE: u64 = 100_000_000;
    let limits = small_limits(1 << 20, 256 << 10);
    let source = || b"{}\n{\"".chain(io::repeat(b'x').take(LINE - 2)).chain(&b"\n{}\n"[..]);
    let expected = |seen: &[Seen]| {
        assert_eq!(seen.len(), 3);
        assert_eq!((seen[0].0, seen[1].0, seen[2].0), (1, 2, 3));
        assert_eq!(seen[1].1.len(), 1024);
        assert_eq!(seen[1].2, Some(Fault::TooLarge { bytes: LINE }));
    };
    expected(&drain_within(7 << 18, source(), Format::Auto, limits));
    let array = b"[1,\"".chain(io::repeat(b'x').take(LINE - 2)).chain(&b"\",2]"[..]);
    expected(&drain_within(7 << 18, array, Format::Auto, limits));
    assert_eq!(drain_within(7 << 18, io::repeat(b'\n').take(LINE / 10), Format::Auto, limits), []);
}

#[test]
fn records_of_one_byte_take_no_more_memory_than_their_chunk() {
    let limits = small_limits(1 << 20, 64 << 10);
    let seen = drain_within(512 << 10, "1\n".repeat(100_000).as_bytes(), Format::Lines, limits);
    assert_eq!(seen.len(), 100_000);
    assert_eq!(seen[99_999].0, 100_000);
}

#[test]
fn a_million_brackets_are_one_record() {
    let depth = 1_000_000;
    let deep = "[".repeat(depth);
    let seen = read(&deep, Format::Auto);
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].1.len(), seen[0].2), (depth - 1, None));
    assert_eq!(read(format!("{deep}{}", "]".repeat(depth)), Format::Auto)[0].1.len(), 2 * depth - 2);
    let seen = read("]".repeat(depth), Format::Documents);
    assert_eq!((seen.len(), seen[0].1.len()), (1, depth));
}

#[test]
fn limits_without_an_end_are_fine() {
    let limits = Limits { record_bytes: usize::MAX, chunk_bytes: 16, inflate_ratio: u64::MAX };
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let (seen, _) = drain(gzip(format!("{long}\n{long}").as_bytes()).as_slice(), Format::Auto, limits);
    assert_eq!(seen, good(&[&long, &long]));
}

#[test]
fn names_tell_the_compression() {
    for (name, compression) in [
        ("a/b.json.gz", Compression::Gzip),
        ("B.JSON.GZIP", Compression::Gzip),
        ("a.Zst", Compression::Zstd),
        ("a.zstd", Compression::Zstd),
        ("a.json", Compression::None),
        ("gz", Compression::None),
        ("a.gz/b", Compression::None),
        ("", Compression::None),
    ] {
        assert_eq!(Compression::of_name(name), compression, "{name}");
    }
}

#[test]
fn compressed_files_are_read_by_their_content() {
    let (first, second) = (&b"{\"a\":1}\n{\"b\":"[..], &b"2}\n{\"c\":3}\n"[..]);
    let expected = good(&["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7].to_vec();
    let files = [
        ("a.json", [first, second].concat()),
        ("a.json", gzip(&[first, second].concat())),
        ("a.json", zstd(&[first, second].concat())),
        ("a.gz", [gzip(first), gzip(b""), gzip(second)].concat()),
        ("a.zst", [zstd(first), zstd(second)].concat()),
        ("a.zst", [skippable.clone(), zstd(first), skippable, zstd(second)].concat()),
        ("a.zst", gzip(&[first, second].concat())),
        ("a.gz", [first, second].concat()),
    ];
    for (name, bytes) in files {
        let compression = Compression::of_name(name);
        let mut records = Records::new(bytes.as_slice(), compression, Format::Auto, Limits::default()).unwrap();
        assert_eq!(seen_of(&records.next_chunk().unwrap().unwrap()), expected, "{name}");
        assert_eq!(records.next_chunk().unwrap(), None);
    }
    assert_eq!(read(gzip(b""), Format::Auto), []);
}

#[test]
fn zeros_after_a_gzip_member_are_padding() {
    let padding = [0; 100_000];
    for rest in [&b""[..], &gzip(b"{\"b\":2}")] {
        let bytes = [&gzip(b"{\"a\":1}\n"), &padding[..], rest].concat();
        let expected: &[&str] = if rest.is_empty() { &["{\"a\":1}"] } else { &["{\"a\":1}", "{\"b\":2}"] };
        assert_eq!(read(bytes, Format::Auto), good(expected));
    }
}

#[test]
fn a_window_that_is_too_large_is_told_as_that() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(b"{}").unwrap();
    let (_, error) = drain(encoder.finish().unwrap().as_slice(), Format::Auto, Limits::default());
    assert!(matches!(error, Some(ReadError::Window)), "{error:?}");
}

#[test]
fn a_truncated_stream_gives_its_good_records_first() {
    // Numbers that hardly repeat, so that what is cut off holds many records.
    let lines: String =
        (0..50_000_u64).map(|n| format!("{{\"n\":{}}}\n", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    let all = read(&lines, Format::Lines);
    for packed in [gzip(lines.as_bytes()), zstd(lines.as_bytes())] {
        let half = &packed[..packed.len() / 2];
        let (seen, error) = drain(half, Format::Auto, small_limits(1 << 20, 64 << 10));
        assert!(matches!(error, Some(ReadError::Inflate(_))), "{error:?}");
        assert!(seen.len() > 10_000 && seen.len() < 40_000, "{}", seen.len());
        assert_eq!(seen, all[..seen.len()]);
        for cut in [4, 5, 12, packed.len() - 1] {
            let (_, error) = drain(&packed[..cut], Format::Auto, Limits::default());
            assert!(matches!(error, Some(ReadError::Inflate(_))), "{cut} {error:?}");
        }
    }
    let (seen, error) =
        drain([gzip(b"1\n"), b"rubbish".to_vec()].concat().as_slice(), Format::Lines, Limits::default());
    assert_eq!(seen, good(&["1"]));
    assert!(matches!(error, Some(ReadError::Inflate(_))));
}

#[test]
fn a_source_that_fails_is_not_taken_for_a_broken_stream() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("connection reset"))
        }
    }
    let lines = b"{}\n".repeat(1000);
    for bytes in [lines.clone(), gzip(&lines), zstd(&lines)] {
        let kept = bytes.len() - 1;
        let (_, error) = drain(bytes[..kept].chain(Broken), Format::Auto, Limits::default());
        assert!(matches!(error, Some(ReadError::Io(_))), "{error:?}");
    }
    let (seen, _) = drain(b"12\n34".chain(Broken), Format::Lines, Limits::default());
    assert_eq!(seen, good(&["12"]), "half a line is not a record");
    assert!(matches!(Records::new(Broken, Compression::None, Format::Auto, Limits::default()), Err(ReadError::Io(_))));
}

#[test]
fn a_bomb_is_stopped() {
    let zeros = vec![b'0'; 1 << 20];
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
    (0..66).for_each(|_| encoder.write_all(&zeros).unwrap());
    let bomb = encoder.finish().unwrap();
    let (_, error) = drain(bomb.as_slice(), Format::Auto, small_limits(1 << 20, 1 << 20));
    let Some(ReadError::Bomb { inflated, read }) = error else { panic!("{error:?}") };
    assert!(inflated > 64 << 20 && inflated < 65 << 20 && inflated / read > 500, "{inflated} {read}");
    // A ratio that is allowed, and a file too small to harm.
    let allowed = Limits { inflate_ratio: 2000, ..small_limits(1 << 20, 1 << 20) };
    assert!(drain(bomb.as_slice(), Format::Auto, allowed).1.is_none());
    assert!(drain(gzip(&zeros.repeat(8)).as_slice(), Format::Auto, small_limits(1 << 20, 1 << 20)).1.is_none());
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        r#"[\[\]{}",:\\ \n\r]{0,8}"#.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| prop_oneof![vec(inner.clone(), 0..4).prop_map(Value::from), object(inner)])
}

fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    btree_map(r#"[a-zж"\\{\]]{0,4}"#, value, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

/// Bytes that mean something to one of the formats, more often than chance would have it.
fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => object(json()).prop_map(|value| value.to_string()),
        1 => object(json()).prop_map(|value| format!("{value:#}")),
        6 => prop::sample::select(vec!["\n", "\r\n", " ", ",", "[", "]", "{", "}", "\"", "\\", "1", "-2.5", "true"])
            .prop_map(str::to_owned),
    ];
    let piece = prop_oneof![12 => token.prop_map(String::into_bytes), 1 => vec(any::<u8>(), 1..3)];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Thousands, or as many as `PROPTEST_CASES` says.
fn many() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(4_096), ..default }
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn every_byte_of_a_file_is_in_a_record(
        bytes in any_file(),
        chunk_bytes in 0_usize..200,
        format in prop::sample::select(vec![Format::Auto, Format::Lines, Format::Documents]),
    ) {
        let bytes = bytes.strip_prefix(&b"\xef\xbb\xbf"[..]).unwrap_or(&bytes);
        prop_assume!(![&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd"].iter().any(|magic| bytes.starts_with(magic)));
        let kept = kept(bytes, format, small_limits(1 << 20, chunk_bytes));
        prop_assert_eq!(solid(&kept), solid(bytes));
        if format == Format::Lines {
            let dense = |text: &[u8]| text.split(|byte| b" \t\r\n".contains(byte)).collect::<Vec<_>>().concat();
            prop_assert_eq!(dense(&kept), dense(bytes));
        }
    }

    #[test]
    fn a_record_that_is_cut_off_costs_no_other(
        values in vec(object(json()), 1..8),
        damaged in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut lines: Vec<String> = values.iter().map(Value::to_string).collect();
        let damaged = damaged.index(lines.len());
        let line = lines.remove(damaged);
        let mut all = lines.clone();
        all.insert(damaged, line[..line.floor_char_boundary(cut.index(line.len()))].to_owned());
        for line_break in ["\n", "\r\n"] {
            let seen = read(all.join(line_break), Format::Auto);
            let seen: Vec<&str> = seen.iter().map(|(_, text, _)| text.as_str()).collect();
            prop_assert!(lines.iter().all(|line| seen.contains(&line.as_str())), "{:?} of {:?}", seen, all);
        }
    }
}

proptest! {
    #[test]
    fn how_the_bytes_come_changes_nothing(
        bytes in any_file(),
        sizes in vec(1_usize..40, 1..6),
        chunk_bytes in 0_usize..200,
        record_bytes in 0_usize..80,
        format in prop::sample::select(vec![Format::Auto, Format::Lines, Format::Documents]),
    ) {
        let (whole, _) = drain(bytes.as_slice(), format, small_limits(record_bytes, 4 << 20));
        let dribble = Dribble { bytes: &bytes, sizes: &sizes, turn: 0 };
        let (dribbled, error) = drain(dribble, format, small_limits(record_bytes, chunk_bytes));
        prop_assert!(error.is_none());
        prop_assert_eq!(whole, dribbled);
    }

    #[test]
    fn a_value_ends_where_it_does_byte_by_byte(
        start in prop::sample::select(vec!["{", "[[[", "{\"", "\"", "1"]),
        rest in vec(prop::sample::select(br#"{}[]""\\, abcd"#.to_vec()), 0..400),
        tail in "[a\\\\]{0,150}",
    ) {
        let bytes = [start.as_bytes(), tail.as_bytes(), &rest].concat();
        let (mut at_once, mut one_by_one) = (ValueScan::default(), ValueScan::default());
        let end = (1..=bytes.len()).find_map(|end| one_by_one.find_end(&bytes[end - 1..end]).map(|length| end - 1 + length));
        prop_assert_eq!(at_once.find_end(&bytes), end);
        prop_assert_eq!(at_once.is_in_string(), one_by_one.is_in_string());
    }

    #[test]
    fn every_way_to_write_the_same_values_reads_the_same(values in vec(object(json()), 0..8)) {
        let each = |write: fn(&Value) -> String, between: &str| values.iter().map(write).collect::<Vec<_>>().join(between);
        let (compact, pretty) = (|value: &Value| value.to_string(), |value: &Value| format!("{value:#}"));
        let lines = each(compact, "\n");
        let writings = [
            (Format::Auto, lines.clone()),
            (Format::Lines, each(compact, "\r\n\r\n")),
            (Format::Auto, format!("[{}]", each(compact, ","))),
            (Format::Auto, format!("[\n{}\n]\n", each(pretty, ",\n"))),
            (Format::Documents, each(pretty, "\n")),
            (Format::Documents, each(compact, "")),
            (Format::Auto, values.iter().map(|value| format!("[{value}]")).collect()),
        ];
        for (format, text) in writings {
            for bytes in [text.clone().into_bytes(), gzip(text.as_bytes()), zstd(text.as_bytes())] {
                let parsed: Result<Vec<Value>, _> =
                    read(bytes, format).iter().map(|(_, text, _)| serde_json::from_str(text)).collect();
                prop_assert_eq!(parsed.unwrap(), values.clone(), "{}", text);
            }
        }
    }
}

/// `cargo test --release -- --ignored --nocapture megabytes`
#[test]
#[ignore = "prints how fast it is"]
#[allow(clippy::disallowed_methods)]
fn megabytes_in_a_second() {
    // Each record differs from the one before, or the processor would learn it by heart.
    let record = |n: u64, text: &str| {
        let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (id, name, text) =
            (n >> (n % 40), &text[..text.floor_char_boundary(n as usize % 9)], text.repeat(n as usize % 4));
        serde_json::json!({
            "update_id": id,
            "message": {
                "message_id": n % 5000, "date": 1_441_645_532, "text": text,
                "chat": {"id": id, "type": "private", "last_name": name},
                "from": {"id": id, "is_bot": n.is_multiple_of(7), "username": name},
            },
        })
    };
    for (name, text) in [("latin", "/start said \"hello\""), ("cyrillic", "съешь ещё этих мягких французских булок ")]
    {
        let values: Vec<Value> = (0..500_000).map(|n| record(n, text)).collect();
        let all =
            |write: fn(&Value) -> String, between: &str| values.iter().map(write).collect::<Vec<_>>().join(between);
        let lines = all(Value::to_string, "\n");
        let array = format!("[{}]", all(Value::to_string, ","));
        let pretty = all(|value| format!("{value:#}"), "\n");
        for (format, bytes) in [("lines", lines), ("array", array), ("pretty", pretty)] {
            let begun = std::time::Instant::now();
            let mut records =
                Records::new(bytes.as_bytes(), Compression::None, Format::Auto, Limits::default()).unwrap();
            let mut found = 0;
            while let Some(chunk) = records.next_chunk().unwrap() {
                found += chunk.records.len();
            }
            let rate = bytes.len() as f64 / begun.elapsed().as_secs_f64() / 1e6;
            println!("{name} {format}: {rate:.0} MB/s, {found} records");
        }
    }
}
