//! The fuzz targets over all vectors and over the inputs in `fuzz/corpus`, on every test run.

#[path = "vectors/format.rs"]
mod format;
#[path = "../../../fuzz/src/targets.rs"]
pub mod targets;

use std::{env, fs, path::Path};

use format::{Vector, load};

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 4] = [
    ("request_head", targets::request_head),
    ("response_head", targets::response_head),
    ("chunked_body", targets::chunked_body),
    ("policies", targets::policies),
];

/// With `FUZZ_SEEDS=FOLDER` it writes the vectors there, for `make fuzz` to start from.
#[test]
fn every_target_holds_for_every_vector() {
    let mut count = 0;
    for (target, run) in TARGETS {
        for (index, seed) in seeds(target).iter().enumerate() {
            run(seed);
            count += 1;
            if let Some(folder) = env::var_os("FUZZ_SEEDS") {
                let folder = Path::new(&folder).join(target);
                fs::create_dir_all(&folder).expect("the folder of the seeds can be made");
                fs::write(folder.join(format!("vector-{index}")), seed).expect("the seed can be written");
            }
        }
    }
    assert!(count >= 500, "{count}");
}

#[test]
fn every_target_holds_for_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (target, run) in TARGETS {
        let entries = fs::read_dir(corpus.join(target)).expect("each target has a corpus");
        let files: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
        assert!(files.len() >= 10, "{target}: {}", files.len());
        for file in files {
            run(&fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
        }
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let [requests, responses, bodies] = ["requests", "responses", "bodies"].map(|name| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name).with_extension("txt");
        load(&fs::read_to_string(&file).expect("the vectors are beside the tests"))
    });
    // A seed for each kind of thing: the first byte of a body's seed says how it is cut.
    let body = |vector: Vector| [&[3], &vector.input[..]].concat();
    let vectors = match target {
        "request_head" => requests,
        "response_head" => responses,
        "chunked_body" => return bodies.into_iter().map(body).collect(),
        _ => [requests, responses].concat(),
    };
    vectors.into_iter().map(|vector| vector.input).collect()
}
