//! The committed header is what cbindgen makes of the sources, and compiles by itself.

use std::process::Command;

use crate::support::{Temp, has, here, run};

/// In the order of the header.
const SOURCES: [&str; 7] = ["status", "options", "log", "durable", "reader", "consumer", "stats"];

fn generated() -> String {
    let config = cbindgen::Config::from_file(here("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config);
    let add = |builder: cbindgen::Builder, name| builder.with_src(here(&format!("src/{name}.rs")));
    let bindings = SOURCES.into_iter().fold(builder, add).generate().unwrap();
    let mut header = Vec::new();
    bindings.write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn committed_header_is_generated_from_the_sources() {
    let path = here("include/ringwal.h");
    let header = generated();
    if std::env::var_os("RINGWAL_UPDATE").is_some() {
        std::fs::write(&path, &header).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == header,
        "{} is not what the sources give: RINGWAL_UPDATE=1 cargo test -p ringwal-capi header",
        path.display()
    );
}

/// Every exported function stands in the header, and no source is left out.
#[test]
fn header_has_every_exported_function() {
    let header = std::fs::read_to_string(here("include/ringwal.h")).unwrap();
    let mut count = 0;
    for file in std::fs::read_dir(here("src")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for part in text.split("#[unsafe(no_mangle)]").skip(1) {
            let name = part.split("fn ").nth(1).unwrap().split('(').next().unwrap();
            assert!(header.contains(&format!("{name}(")), "{name}");
            count += 1;
        }
    }
    assert!(count > 50, "the functions were not found");
}

#[test]
fn headers_compile_by_themselves_in_each_standard() {
    let temp = Temp::new();
    for (compiler, standards, header) in [
        ("cc", &["-std=c99", "-std=c11", "-std=c17"][..], "ringwal.h"),
        ("c++", &["-std=c++17", "-std=c++20"][..], "ringwal.h"),
        ("c++", &["-std=c++17", "-std=c++20"][..], "ringwal.hpp"),
    ] {
        if !has(compiler, "the compiler of the headers") {
            continue;
        }
        let source = temp.join(if compiler == "cc" { "one.c" } else { "one.cpp" });
        let twice = format!("#include <{header}>\n#include <{header}>\n");
        std::fs::write(&source, twice + "int main(void) { return 0; }\n").unwrap();
        for standard in standards {
            let mut command = Command::new(compiler);
            command.args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]);
            run(command.arg("-I").arg(here("include")).arg(&source));
        }
    }
}
