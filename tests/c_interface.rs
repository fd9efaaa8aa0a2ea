//! The C programs in `c_tests`: each as C99 and as C++17, linked to the shared and to the static
//! library, and once more under valgrind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Wundef", "-Werror"];

/// Not run under valgrind: it needs more address space itself than these leave to the process.
const NATIVE_ONLY: [&str; 1] = ["limits"];

/// A program that takes longer hangs.
const TIMEOUT: &str = "600";

/// What valgrind has to do with less of; it makes the programs about thirty times slower.
const VALGRIND_SCALE: &str = "20";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| {
        format!("{command:?}: {error}; scripts/setup installs what the tests need")
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        // Cargo names files in the one, rustc libraries in the other.
        return Ok(text(&output.stdout) + &text(&output.stderr));
    }
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    Err(format!("{command:?}: {}\n{stdout}{stderr}", output.status))
}

struct Library {
    /// Holds `librawdb.so`, also by its SONAME, and `librawdb.a`.
    dir: PathBuf,
    /// What a program that `librawdb.a` is linked into needs besides.
    static_libs: Vec<String>,
}

/// The libraries as they are shipped, built by the Cargo that runs this test.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let cargo = |arguments: &[&str]| {
            run(Command::new(env!("CARGO")).args(arguments).current_dir(root())).unwrap()
        };
        let messages =
            cargo(&["build", "--release", "--lib", "--message-format=json-render-diagnostics"]);
        let dir = scratch().join("lib");
        fs::create_dir_all(&dir).unwrap();
        for name in ["librawdb.so", "librawdb.a"] {
            let path = messages.split('"').find(|text| text.ends_with(&format!("/{name}")));
            fs::copy(path.expect("Cargo names what it built"), dir.join(name)).unwrap();
        }
        fs::copy(dir.join("librawdb.so"), dir.join("librawdb.so.0")).unwrap();

        // In a target directory of its own, as the flag would have the library built anew, now
        // here and at the next build there.
        let target = scratch().join("native-static-libs");
        let notes = cargo(&[
            "rustc",
            "--lib",
            "--crate-type=staticlib",
            "--target-dir",
            target.to_str().unwrap(),
            "--",
            "--print=native-static-libs",
        ]);
        let libs = notes.lines().find_map(|line| line.split_once("native-static-libs: "));
        let (_, libs) = libs.expect("rustc names the system's libraries");
        Library { dir, static_libs: libs.split_whitespace().map(str::to_owned).collect() }
    })
}

fn programs() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root().join("c_tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// Compiles and links `c_tests/<name>.c`.
fn compile(name: &str, dialect: &str, linkage: &str) -> Result<PathBuf, String> {
    let cxx = dialect.starts_with("c++");
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let compiler = cc::Build::new()
        .cpp(cxx)
        .host(&host)
        .target(&host)
        .opt_level(2)
        .debug(true)
        .out_dir(scratch())
        .cargo_metadata(false)
        .get_compiler();
    let library = library();
    let program = scratch().join(format!("{name}-{dialect}-{linkage}"));

    let mut command = compiler.to_command();
    command.args(WARNINGS).arg(format!("-std={dialect}"));
    command.arg("-I").arg(root().join("include")).arg("-o").arg(&program);
    command.args(["-x", if cxx { "c++" } else { "c" }]);
    command.arg(root().join(format!("c_tests/{name}.c"))).args(["-x", "none"]);
    if linkage == "shared" {
        command.arg(library.dir.join("librawdb.so"));
        command.arg(format!("-Wl,-rpath,{}", library.dir.display())).arg("-lpthread");
    } else {
        command.arg(library.dir.join("librawdb.a")).args(&library.static_libs);
    }
    run(&mut command).map(|_| program)
}

/// Runs the programs, each in an empty directory, by what `command` makes of their paths.
fn run_all(names: &[String], dialect: &str, linkage: &str, command: impl Fn(&Path) -> Command) {
    let mut failures = String::new();
    for name in names {
        let result = compile(name, dialect, linkage).and_then(|program| {
            let dir = tempfile::tempdir_in(scratch()).unwrap();
            run(command(&program).env("TMPDIR", dir.path()))
        });
        match result {
            Ok(output) => println!("{name}:\n{output}"),
            Err(error) => failures += &format!("\n{error}"),
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

fn run_natively(dialect: &str, linkage: &str) {
    run_all(&programs(), dialect, linkage, |program| {
        let mut command = Command::new("timeout");
        command.arg(TIMEOUT).arg(program);
        command
    });
}

#[test]
fn c99_with_shared_library() {
    run_natively("c99", "shared");
}

#[test]
fn c99_with_static_library() {
    run_natively("c99", "static");
}

#[test]
fn cxx17_with_shared_library() {
    run_natively("c++17", "shared");
}

#[test]
fn cxx17_with_static_library() {
    run_natively("c++17", "static");
}

/// No invalid access, no use of undefined bytes, no leak.
#[test]
fn under_valgrind() {
    let mut names = programs();
    names.retain(|name| !NATIVE_ONLY.contains(&name.as_str()));
    // C11, so that the programs are others than those that the tests beside this one link.
    run_all(&names, "c11", "shared", |program| {
        let mut command = Command::new("timeout");
        command
            .args([TIMEOUT, "valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full"])
            .args(["--show-leak-kinds=all", "--errors-for-leak-kinds=definite,possible,indirect"])
            .arg(program)
            .env("RAWDB_TEST_SCALE", VALGRIND_SCALE);
        command
    });
}
