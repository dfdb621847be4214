//! The install script: the files, their names, what the shared library exports, and programs that
//! are built with pkg-config and CMake.

use std::path::Path;
use std::process::Command;

use crate::support::{Temp, archive, has, here, run};

fn installed() -> Option<Temp> {
    installed_with(|_, _| ())
}

fn installed_with(set: impl FnOnce(&Temp, &mut Command)) -> Option<Temp> {
    if cfg!(not(target_os = "linux")) || !has("cc", "the install script") {
        return None;
    }
    let temp = Temp::new();
    let mut script = Command::new("sh");
    script.arg(here("install.sh")).arg("--archive").arg(archive()).arg(temp.join("usr"));
    script.env_remove("LIBDIR").env_remove("DESTDIR");
    set(&temp, &mut script);
    run(&mut script);
    Some(temp)
}

#[test]
fn relative_libdir_is_below_the_prefix_and_an_absolute_one_is_itself() {
    let relative = installed_with(|temp, script| {
        script.env("LIBDIR", "lib/here").current_dir(&temp.0);
    });
    let Some(temp) = relative else { return };
    let check = |temp: &Temp, libdir: &Path| {
        assert!(libdir.join("libringwal.so").exists() && libdir.join("libringwal.a").exists());
        let file = std::fs::read_to_string(libdir.join("pkgconfig/ringwal.pc")).unwrap();
        assert!(file.contains(&format!("libdir={}\n", libdir.display())), "{file}");
        assert!(!temp.join("lib").exists() && !temp.join("usr/lib/libringwal.a").exists());
    };
    check(&temp, &temp.join("usr/lib/here"));
    let absolute = installed_with(|temp, script| {
        script.env("LIBDIR", temp.join("elsewhere"));
    });
    let Some(temp) = absolute else { return };
    check(&temp, &temp.join("elsewhere"));
}

fn soname() -> String {
    format!("libringwal.so.{}.{}", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"))
}

#[test]
fn installed_shared_library_exports_versioned_functions_only() {
    let Some(temp) = installed() else { return };
    let library = temp.join("usr/lib/libringwal.so");
    let target = std::fs::canonicalize(&library).unwrap();
    let full = format!("libringwal.so.{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(target.file_name().unwrap().to_str(), Some(full.as_str()));
    if !has("nm", "the symbols") || !has("readelf", "the name") {
        return;
    }
    let dynamic = run(Command::new("readelf").arg("-d").arg(&library));
    assert!(dynamic.contains(&format!("soname: [{}]", soname())), "{dynamic}");
    let version = soname().replace("libringwal.so.", "@@RINGWAL_");
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let names: Vec<&str> = symbols.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let functions: Vec<&&str> = names.iter().filter(|name| name.starts_with("ringwal_")).collect();
    assert!(functions.iter().all(|name| name.ends_with(&version)), "{symbols}");
    let header = std::fs::read_to_string(here("include/ringwal.h")).unwrap();
    for function in &functions {
        let name = function.split('@').next().unwrap();
        assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
    }
    assert!(functions.len() > 50);
    let ours = |name: &&&str| name.starts_with("ringwal_") || name.starts_with("RINGWAL_");
    assert_eq!(names.iter().filter(ours).count(), names.len(), "{symbols}");
}

#[test]
fn program_is_built_with_pkg_config_against_either_library() {
    let Some(temp) = installed() else { return };
    if !has("pkg-config", "building with pkg-config") {
        return;
    }
    for link in ["--shared", "--static"] {
        let mut ask = Command::new("pkg-config");
        ask.args(["--cflags", "--libs"]).arg(link).arg("ringwal");
        ask.env("PKG_CONFIG_PATH", temp.join("usr/lib/pkgconfig"));
        let mut flags = run(&mut ask);
        if link == "--static" {
            // Without this the linker prefers the shared library beside the static one.
            flags = flags.replace("-lringwal", "-l:libringwal.a");
        }
        let program = temp.join("append");
        let mut command = Command::new("cc");
        command.arg(here("examples/append.c")).args(flags.split_whitespace());
        run(command.arg("-o").arg(&program));
        let log = temp.join(&format!("log{link}"));
        let mut command = Command::new(&program);
        command.arg(log).env("LD_LIBRARY_PATH", temp.join("usr/lib"));
        assert_eq!(run(&mut command).lines().last(), Some("4 records"), "{link}");
        if link == "--shared" && has("readelf", "what it needs") {
            let needed = run(Command::new("readelf").arg("-d").arg(&program));
            assert!(needed.contains(&format!("[{}]", soname())), "{needed}");
        }
    }
}

#[test]
fn program_is_built_with_cmake_against_either_library() {
    let Some(temp) = installed() else { return };
    if !has("cmake", "building with CMake") {
        return;
    }
    let example = here("examples/append.c");
    let project = format!(
        "cmake_minimum_required(VERSION 3.13)\nproject(example C)\n\
         find_package(ringwal {} REQUIRED)\n\
         add_executable(shared {example})\ntarget_link_libraries(shared ringwal::ringwal)\n\
         add_executable(static {example})\ntarget_link_libraries(static ringwal::ringwal_static)\n",
        env!("CARGO_PKG_VERSION"),
        example = example.display()
    );
    let (source, build) = (temp.join("source"), temp.join("build"));
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("CMakeLists.txt"), project).unwrap();
    let prefix = format!("-DCMAKE_PREFIX_PATH={}", temp.join("usr").display());
    run(Command::new("cmake").arg("-S").arg(&source).arg("-B").arg(&build).arg(prefix));
    run(Command::new("cmake").arg("--build").arg(&build));
    for name in ["shared", "static"] {
        let mut command = Command::new(Path::new(&build).join(name));
        let out = run(command.arg(temp.join(&format!("log-{name}"))));
        assert_eq!(out.lines().last(), Some("4 records"), "{name}");
    }
}
