//! What is refused, and in which words.

use proptest::prelude::*;

use super::super::syntax::Syntax;
use super::*;

/// Every file of `tests/config/bad` stands beside the exact text of its rejection.
#[test]
fn every_bad_file_is_refused_in_the_expected_words() {
    let folder = repository().join("tests/config/bad");
    let bless = std::env::var_os("HAMMERD_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in files("tests/config/bad") {
        let got = refuse(&Sources { files: vec![path.clone()], ..Sources::default() }).to_string() + "\n";
        let got = got.replace(&format!("{}/", folder.display()), "");
        let expected = path.with_added_extension("txt");
        if bless {
            std::fs::write(&expected, &got).unwrap();
        }
        let want = std::fs::read_to_string(&expected).unwrap_or_default();
        if got != want {
            wrong.push(format!("{}: got\n{got}instead of\n{want}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
