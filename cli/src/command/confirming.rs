//! Asking the person on the terminal before what does not come back.

use std::io::IsTerminal as _;

use tokio::io::AsyncBufReadExt as _;

use crate::failure::Failure;

/// Whether somebody can be asked.
pub(super) fn somebody_is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Puts a question on the terminal. Empty at its end.
#[expect(
    clippy::print_stderr,
    reason = "a question is no part of the record on standard output"
)]
pub(super) async fn ask(question: &str) -> Result<String, Failure> {
    eprint!("{question}");
    let mut answer = String::new();
    tokio::io::BufReader::new(tokio::io::stdin())
        .read_line(&mut answer)
        .await
        .map_err(|source| Failure::System {
            what: "read the answer",
            source,
        })?;
    Ok(answer)
}

/// Has `name` typed, or given as `--yes-expunge`.
///
/// # Errors
/// When it was not, or nobody can be asked.
pub(super) async fn typed(question: &str, name: &str, given: Option<&str>) -> Result<(), Failure> {
    match given {
        Some(given) if given == name => return Ok(()),
        Some(given) => {
            return Err(Failure::Senseless {
                why: format!("--yes-expunge says {given:?}, and what is to be expunged is {name}"),
            });
        }
        None => {}
    }
    if !somebody_is_there() {
        return Err(Failure::NobodyToType {
            name: name.to_owned(),
        });
    }
    match ask(question).await?.trim() == name {
        true => Ok(()),
        false => Err(Failure::Mistyped {
            name: name.to_owned(),
        }),
    }
}
