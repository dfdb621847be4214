//! Prints the public items of a crate, one a line, from the JSON that rustdoc writes.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: api-listing RUSTDOC_JSON");
        return ExitCode::from(2);
    };
    let listing = public_api::Builder::from_rustdoc_json(path)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build();
    match listing {
        Ok(api) => {
            println!("{api}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("api-listing: {error}");
            ExitCode::FAILURE
        }
    }
}
