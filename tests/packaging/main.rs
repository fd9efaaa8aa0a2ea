//! The library as others take it: installed by CMake and by make, moved, and linked in every way
//! that README.md shows, from an environment that has neither Rust nor the source tree.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../common/mod.rs"]
mod common;
use common::{
    attempt, dist, installation, make_install, root, run, scratch, static_library, system_libs,
};

/// Where scripts/setup installs what is no Debian package.
const TOOLS: &str = "target/tools";

/// A program that takes longer hangs.
const TIMEOUT: &str = "300";

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Every file below a directory with its mode, and what it contains or links to.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if metadata.is_dir() {
                dirs.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            files.insert(path, (metadata.permissions().mode(), content));
        }
    }
    files.into_iter().map(|(path, it)| (path.strip_prefix(dir).unwrap().into(), it)).collect()
}

/// CMake, for the source tree `source`, with the Cargo that runs this test and what it has built.
fn cmake(source: &Path, build: &Path, arguments: &[&str]) {
    run(Command::new("cmake")
        .arg("-S")
        .arg(source)
        .arg("-B")
        .arg(build)
        .arg(format!("-DRAWDB_CARGO={}", env!("CARGO")))
        .arg(format!("-DRAWDB_CARGO_TARGET_DIR={}", dist().join("cargo").display()))
        .args(arguments));
}

/// A directory of which the source tree, and what hides it, know nothing.
fn elsewhere() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    assert!(!root().starts_with(dir.path()));
    dir
}

/// A shell that runs `script` in `dir` with nothing of this process's environment, and sees neither
/// the source tree nor Rust. `$PREFIX` is `prefix`.
fn clean_shell(dir: &Path, prefix: &Path, script: &str) -> Result<String, String> {
    let rust = |variable: &str, default: &str| {
        let home = std::env::var("HOME").unwrap();
        std::env::var(variable).unwrap_or_else(|_| format!("{home}/{default}"))
    };
    // Next to the prefix, so that compilers find in their caches what they have put there.
    let (tools, home) = (dir.join("tools"), prefix.parent().unwrap().join("home"));
    fs::create_dir_all(&tools).unwrap();
    fs::create_dir_all(&home).unwrap();
    let hide = r#"
        mount --bind "$1" "$2"
        for hidden in "$3" "$4" "$5"; do
            [ ! -d "$hidden" ] || mount -t tmpfs none "$hidden"
        done
        cd "$6"
        shift 6
        exec env -i "$@"
    "#;
    attempt(
        Command::new("timeout")
            .args([TIMEOUT, "unshare", "--mount", "sh", "-ec", hide, "sh"])
            .arg(root().join(TOOLS))
            .arg(&tools)
            .arg(root())
            .arg(rust("CARGO_HOME", ".cargo"))
            .arg(rust("RUSTUP_HOME", ".rustup"))
            .arg(dir)
            .arg(format!("PATH={}/ziglang:/usr/bin:/bin", tools.display()))
            .arg(format!("HOME={}", home.display()))
            .arg(format!("PREFIX={}", prefix.display()))
            .args(["LC_ALL=C.UTF-8", "sh", "-euc", script]),
    )
}

// ---- installing ----

#[test]
fn make_and_cmake_install_the_same() {
    let dir = elsewhere();
    // With spaces, in the prefix as in what stands before it.
    let (prefix, made, built) =
        (Path::new("/opt/raw db"), dir.path().join("by make"), dir.path().join("by cmake"));
    for (libdir, include) in [("lib", "include"), ("lib/x86_64-linux-gnu", "include/raw/db")] {
        make_install(
            prefix,
            &[
                "DOC=yes",
                &format!("DESTDIR={}", made.display()),
                &format!("LIBDIR={libdir}"),
                &format!("INCLUDEDIR={include}"),
            ],
        );
        let build = dir.path().join("build tree");
        cmake(
            root(),
            &build,
            &[
                &format!("-DCMAKE_INSTALL_PREFIX={}", prefix.display()),
                &format!("-DCMAKE_INSTALL_LIBDIR={libdir}"),
                &format!("-DCMAKE_INSTALL_INCLUDEDIR={include}"),
                "-DRAWDB_BUILD_DOC=ON",
            ],
        );
        run(Command::new("cmake").arg("--build").arg(&build));
        run(Command::new("cmake").arg("--install").arg(&build).env("DESTDIR", &built));

        let (by_make, by_cmake) = (tree(&made), tree(&built));
        let names = |tree: &BTreeMap<PathBuf, (u32, Vec<u8>)>| -> Vec<_> {
            tree.iter().map(|(path, (mode, _))| format!("{mode:o} {}", path.display())).collect()
        };
        assert_eq!(names(&by_make), names(&by_cmake));
        for (path, (_, content)) in &by_make {
            assert!(*content == by_cmake[path].1, "{} differs", path.display());
        }

        let file = |path: &str| {
            let path = Path::new("opt/raw db").join(path);
            by_make.get(&path).unwrap_or_else(|| panic!("no {}", path.display())).1.clone()
        };
        let links_to = |name: &str| String::from_utf8(file(&format!("{libdir}/{name}"))).unwrap();
        assert_eq!(links_to("librawdb.so"), "librawdb.so.0");
        assert_eq!(links_to("librawdb.so.0"), format!("librawdb.so.{VERSION}"));
        let header = fs::read(root().join("include/rawdb.h")).unwrap();
        assert!(file(&format!("{include}/rawdb.h")) == header);
        for path in ["LICENSE-MIT", "LICENSE-APACHE", "html/index.html"] {
            assert!(!file(&format!("share/doc/rawdb/{path}")).is_empty());
        }
        for name in ["librawdb.a", "pkgconfig/rawdb.pc", "cmake/rawdb/rawdbConfig.cmake"] {
            let content = file(&format!("{libdir}/{name}"));
            let contains = |text: &str| content.windows(text.len()).any(|it| it == text.as_bytes());
            assert!(!contains("/opt/raw db"), "{name} has the prefix in it");
        }
        fs::remove_dir_all(&made).unwrap();
        fs::remove_dir_all(&built).unwrap();
    }
}

/// What a package for running programs has, and what one for building them.
#[test]
fn cmake_installs_components_and_either_library_alone() {
    let dir = elsewhere();
    let build = dir.path().join("build");
    let install = |component: &str| {
        let prefix = dir.path().join(component);
        let _ = fs::remove_dir_all(&prefix);
        run(Command::new("cmake")
            .args(["--install", build.to_str().unwrap(), "--component", component, "--prefix"])
            .arg(&prefix));
        tree(&prefix.join("lib")).into_keys().map(|path| path.display().to_string()).collect()
    };
    let so = format!("librawdb.so.{VERSION}");
    let package = [
        "cmake",
        "cmake/rawdb",
        "cmake/rawdb/rawdbConfig.cmake",
        "cmake/rawdb/rawdbConfigVersion.cmake",
    ];
    let pc = ["pkgconfig", "pkgconfig/rawdb.pc"];
    for (option, runtime, development) in [
        ("", vec!["librawdb.so.0", &so], vec!["librawdb.a", "librawdb.so"]),
        ("STATIC", vec!["librawdb.so.0", &so], vec!["librawdb.so"]),
        ("SHARED", vec![], vec!["librawdb.a"]),
    ] {
        let options: Vec<_> = ["SHARED", "STATIC"]
            .map(|kind| {
                format!("-DRAWDB_BUILD_{kind}={}", if kind == option { "OFF" } else { "ON" })
            })
            .to_vec();
        cmake(root(), &build, &options.iter().map(String::as_str).collect::<Vec<_>>());
        run(Command::new("cmake").arg("--build").arg(&build));
        let installed: Vec<String> = install("development");
        assert_eq!(installed, [&package[..], &development, &pc].concat(), "without {option}");
        if !runtime.is_empty() {
            let installed: Vec<String> = install("runtime");
            assert_eq!(installed, runtime, "without {option}");
        }
    }

    // Where there is only librawdb.a, nobody has to ask for it.
    let static_only = dir.path().join("development");
    copy_tree(&root().join("examples_ffi"), &dir.path().join("examples"));
    let script = r#"
        export PKG_CONFIG_PATH="$PREFIX/lib/pkgconfig"
        gcc -o journal examples/c/journal.c $(pkg-config --cflags --libs rawdb)
        ./journal journal.rawdb
        printf '%s\n' 'cmake_minimum_required(VERSION 3.16)' 'project(journal C)' \
            'find_package(rawdb REQUIRED)' 'add_executable(journal examples/c/journal.c)' \
            'target_link_libraries(journal PRIVATE rawdb::rawdb)' > CMakeLists.txt
        cmake -S . -B build-journal -DCMAKE_PREFIX_PATH="$PREFIX"
        cmake --build build-journal
        build-journal/journal journal.rawdb
        echo 'find_package(rawdb REQUIRED COMPONENTS shared)' >> CMakeLists.txt
        ! cmake -S . -B build-journal 2> message
        grep 'rawdb is installed without: shared' message
    "#;
    check_journals(&clean_shell(dir.path(), &static_only, script).unwrap(), 2, "static only");
}

/// Each build type is the Cargo profile that it should be, with every kind of generator.
#[test]
fn cmake_build_types_and_generators() {
    let dir = elsewhere();
    copy_tree(&root().join("examples_ffi"), &dir.path().join("examples"));
    let source = dir.path().join("examples/cmake/subdirectory");
    let rawdb = format!("-DRAWDB_SOURCE={}", root().display());
    let check = |build: &Path, config: &str, program: &Path| {
        run(Command::new("cmake").arg("--build").arg(build).args(["--config", config]));
        for suffix in ["", "-shared"] {
            let program = format!("{}{suffix}", program.display());
            let output = run(Command::new(&program).arg(dir.path().join("db")));
            check_journals(&output, 1, &program);
        }
        // Only what has not been stripped has the sections for a debugger.
        let sections = run(Command::new("readelf").arg("-SW").arg(program));
        let debuggable = sections.contains(".debug_info");
        assert_eq!(debuggable, matches!(config, "Debug" | "RelWithDebInfo"), "{config}");
        fs::metadata(program).unwrap().len()
    };

    let mut sizes = BTreeMap::new();
    let build = dir.path().join("multi config");
    cmake(
        &source,
        &build,
        &[
            &rawdb,
            "-GNinja Multi-Config",
            "-DCMAKE_CONFIGURATION_TYPES=Debug;Release;RelWithDebInfo;MinSizeRel",
        ],
    );
    for config in ["Debug", "Release", "RelWithDebInfo", "MinSizeRel"] {
        let size = check(&build, config, &build.join(config).join("journal"));
        sizes.insert(config, size);
    }
    assert!(sizes["MinSizeRel"] < sizes["Release"], "{sizes:?}");

    for (generator, config) in [("Ninja", "Release"), ("Unix Makefiles", "MinSizeRel")] {
        let build = dir.path().join(generator);
        let build_type = format!("-DCMAKE_BUILD_TYPE={config}");
        cmake(&source, &build, &[&rawdb, "-G", generator, &build_type]);
        let size = check(&build, config, &build.join("journal"));
        assert_eq!(size, sizes[config], "{generator}");
        // Nothing has changed, so nothing is linked again.
        let linked = || fs::metadata(build.join("journal")).unwrap().modified().unwrap();
        let before = linked();
        run(Command::new("cmake").arg("--build").arg(&build));
        assert_eq!(linked(), before, "{generator}");
    }
}

/// The oldest CMake that CMakeLists.txt, the package and the examples ask for.
#[test]
fn cmake_3_16_is_enough() {
    let dir = elsewhere();
    copy_tree(&root().join("examples_ffi"), &dir.path().join("examples"));
    let script = r#"
        cmake --version | grep -q 'version 3\.16\.'
        cmake -S "$SOURCE" -B build -DCMAKE_INSTALL_PREFIX="$PWD/prefix" $OPTIONS
        cmake --build build
        cmake --install build
        cmake -S examples/cmake/installed -B installed -DCMAKE_PREFIX_PATH="$PWD/prefix"
        cmake --build installed
        installed/journal journal.rawdb
        for way in subdirectory fetchcontent; do
            cmake -S examples/cmake/$way -B $way -DRAWDB_SOURCE="$SOURCE" $OPTIONS
            cmake --build $way
            $way/journal journal.rawdb
        done
    "#;
    let options = format!(
        "-DRAWDB_CARGO={} -DRAWDB_CARGO_TARGET_DIR={}",
        env!("CARGO"),
        dist().join("cargo").display()
    );
    let cmake = root().join(TOOLS).join("cmake/data/bin");
    let output = run(Command::new("sh")
        .args(["-euc", script])
        .env("PATH", format!("{}:{}", cmake.display(), std::env::var("PATH").unwrap()))
        .env("SOURCE", root())
        .env("OPTIONS", options)
        .current_dir(dir.path()));
    check_journals(&output, 3, "CMake 3.16");
}

/// Before 1.0, another minor version may be another interface.
#[test]
fn cmake_versions_are_compatible_within_a_minor_version() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = [
        ("", true),
        ("0.1", true),
        ("0.1.0", true),
        ("0.1.0 EXACT", true),
        ("0.1.1", false),
        ("0.2", false),
        ("0.0.9", false),
        ("1.0", false),
        ("0", false),
        ("0.0...0.1", true),
        ("0.0...<0.1", false),
        ("0.2...1.0", false),
    ];
    let mut script = String::from("cmake_minimum_required(VERSION 3.19)\nproject(versions NONE)\n");
    for (version, _) in wanted {
        script +=
            &format!("find_package(rawdb {version} QUIET)\nmessage(\"found: ${{rawdb_FOUND}}\")\n");
        script += "unset(rawdb_DIR CACHE)\n";
    }
    fs::write(dir.path().join("CMakeLists.txt"), script).unwrap();
    let output = run(Command::new("sh")
        .args(["-c", "cmake -S . -B build -DCMAKE_PREFIX_PATH=\"$0\" 2>&1"])
        .arg(installation())
        .current_dir(dir.path()));
    let found: Vec<_> = output.lines().filter_map(|line| line.strip_prefix("found: ")).collect();
    assert_eq!(found.len(), wanted.len(), "{output}");
    for ((version, wanted), found) in wanted.iter().zip(found) {
        assert_eq!(found == "1", *wanted, "find_package(rawdb {version})");
    }
}

// ---- consumers ----

/// What the programs of `examples_ffi` print: what they have read back, and their error.
#[track_caller]
fn check_journals(output: &str, count: usize, what: &str) {
    let lines = |wanted: &str| output.lines().filter(|line| *line == wanted).count();
    assert_eq!(lines("hello, world"), count, "{what}:\n{output}");
    let error = "RAWDB_E_NOT_FOUND: there is no region \"missing\"";
    assert_eq!(lines(error), count, "{what}:\n{output}");
}

/// A section of README.md below "## Linking", with its code blocks and their languages.
struct Section {
    title: String,
    blocks: Vec<(String, String)>,
}

fn sections() -> Vec<Section> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, linking) = readme.split_once("\n## Linking\n").unwrap();
    let (linking, _) = linking.split_once("\n## ").unwrap();
    linking
        .split("\n### ")
        .map(|section| {
            let (title, text) = section.split_once('\n').unwrap();
            let mut blocks = Vec::new();
            for block in text.split("```").skip(1).step_by(2) {
                let (language, code) = block.split_once('\n').unwrap();
                blocks.push((language.to_owned(), code.to_owned()));
            }
            Section { title: title.to_owned(), blocks }
        })
        .collect()
}

/// Runs the commands of every section of README.md for a library in `prefix`.
fn follow_the_readme(dir: &Path, prefix: &Path) {
    let mut sections = sections().into_iter();
    let (_, preparation) = &sections.next().unwrap().blocks[0];
    for Section { title, blocks } in sections {
        let dir = dir.join(title.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        copy_tree(&root().join("examples_ffi"), &dir);
        let commands = blocks.iter().filter(|(language, _)| language == "sh");
        let commands: String = commands.map(|(_, code)| code.as_str()).collect();
        let script = preparation.clone() + &commands;
        // Those that build the library need what is there to build it.
        let output = if commands.contains("RAWDB_SOURCE") {
            attempt(
                Command::new("sh")
                    .args(["-euc", &script])
                    .env("PREFIX", prefix)
                    .env("RAWDB_SOURCE", root())
                    .current_dir(&dir),
            )
        } else {
            clean_shell(&dir, prefix, &script)
        };
        let runs = commands.matches(" journal.rawdb\n").count();
        assert!(runs > 0, "{title}");
        check_journals(&output.unwrap_or_else(|error| panic!("{title}: {error}")), runs, &title);
    }
}

/// Every way to link that README.md shows, then once more with the installation moved.
#[test]
fn readme_sections_hold_also_after_the_prefix_has_moved() {
    let dir = elsewhere();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    copy_tree(installation(), &first);
    follow_the_readme(&dir.path().join("before"), &first);
    fs::rename(&first, &second).unwrap();
    follow_the_readme(&dir.path().join("after"), &second);
}

/// What README.md shows of programs is from programs that the tests run.
#[test]
fn readme_quotes_the_examples() {
    let files = tree(&root().join("examples_ffi"));
    for Section { title, blocks } in sections() {
        for (language, code) in blocks {
            let found = language == "sh"
                || files.values().any(|(_, content)| {
                    let content = String::from_utf8_lossy(content);
                    // The excerpt may stand further left than in the program.
                    let lines = |text: &str| {
                        text.lines().map(|line| format!("{}\n", line.trim())).collect::<String>()
                    };
                    lines(&content).contains(&lines(&code))
                });
            assert!(found, "{title}: no example has\n{code}");
        }
    }
}

/// C and C++, shared and static, by CMake, by pkg-config, and by hand, where paths have spaces; and
/// again in another such place.
#[test]
fn prefixes_may_have_spaces() {
    let dir = elsewhere();
    copy_tree(&root().join("examples_ffi"), &dir.path().join("the examples"));
    let (first, second) = (dir.path().join("first prefix"), dir.path().join("second prefix"));
    copy_tree(installation(), &first);
    let script = r#"
        export PKG_CONFIG_PATH="$PREFIX/lib/pkgconfig"
        cd 'the examples'
        for choice in "" -DBUILD_SHARED_LIBS=OFF; do
            rm -rf 'build tree'
            cmake -S cmake/installed -B 'build tree' -DCMAKE_PREFIX_PATH="$PREFIX" $choice
            cmake --build 'build tree'
            for program in journal journal-shared journal-static journal-cxx-shared \
                journal-cxx-static; do
                'build tree'/$program journal.rawdb
            done
            readelf -d 'build tree/journal' | grep -c 'NEEDED.*librawdb.so.0' || true
            readelf -d 'build tree/journal-static' | grep -c 'NEEDED.*librawdb.so.0' || true
        done

        # pkg-config quotes for a shell.
        for compiler in "gcc c/journal.c" "g++ -std=c++17 cxx/journal.cpp"; do
            export LD_LIBRARY_PATH="$PREFIX/lib"
            eval "$compiler -o journal $(pkg-config --cflags --libs rawdb)"
            ./journal journal.rawdb
            unset LD_LIBRARY_PATH
            eval "$compiler -o journal -static $(pkg-config --static --cflags --libs rawdb)"
            ./journal journal.rawdb
        done
    "#;
    for prefix in [&first, &second] {
        if prefix == &second {
            fs::rename(&first, &second).unwrap();
        }
        let output = clean_shell(dir.path(), prefix, script).unwrap();
        check_journals(&output, 14, "spaces");
        // rawdb::rawdb and rawdb::static with the default, and with BUILD_SHARED_LIBS=OFF.
        let needed: Vec<_> = output.lines().filter(|line| ["0", "1"].contains(line)).collect();
        assert_eq!(needed, ["1", "0", "0", "0"], "{output}");
    }
}

// ---- the static library among others ----

fn compile(dir: &Path, arguments: &[&str]) {
    run(Command::new("gcc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(installation().join("include"))
        .args(arguments)
        .arg(static_library())
        .args(system_libs())
        .current_dir(dir));
}

/// Two Rust libraries, each with a standard library in it, in one program; also one that Cargo has
/// optimised as ours is, and in any order.
#[test]
fn two_rust_libraries_in_one_program() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let source = |name: &str| root().join("tests/packaging").join(name).display().to_string();
    for (kind, options) in [("plain", &[][..]), ("optimised", &["-O", "-Clto=fat"])] {
        let other = format!("libother_{kind}.a");
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        run(Command::new(rustc)
            .args(["--crate-type=staticlib", "--edition=2021", &source("other.rs"), "-o", &other])
            .args(options)
            .current_dir(dir.path()));
        let own = static_library().display().to_string();
        for (order, libraries) in [[&own, &other], [&other, &own]].iter().enumerate() {
            let program = format!("{kind}-{order}");
            compile(
                dir.path(),
                &["-o", &program, &source("two_libraries.c"), libraries[0], libraries[1]],
            );
            let db = dir.path().join(format!("{program}.rawdb"));
            let output = run(Command::new(dir.path().join(&program)).arg(db));
            assert_eq!(output, "good\n", "{program}");
        }
    }
}

/// A shared library with `librawdb.a` in it exports nothing of it, and does not get in the way of a
/// program that uses rawdb itself.
#[test]
fn embedded_library_stays_inside() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let source = |name: &str| root().join("tests/packaging").join(name).display().to_string();
    let library = dir.path().join("libembedding.so");
    compile(dir.path(), &["-shared", "-fPIC", "-o", "libembedding.so", &source("embedding.c")]);
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let names: Vec<_> = symbols.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(names, ["embedding_error", "embedding_store"]);

    symlink(installation().join("lib/librawdb.so.0"), dir.path().join("librawdb.so.0")).unwrap();
    run(Command::new("gcc")
        .args(["-std=c99", "-o", "embedded", &source("embedded.c"), "libembedding.so", "-I"])
        .arg(installation().join("include"))
        .args(["librawdb.so.0", "-Wl,-rpath,$ORIGIN"])
        .current_dir(dir.path()));
    let output = run(Command::new(dir.path().join("embedded")).arg(dir.path().join("db")));
    assert_eq!(output, "good\n");
}

/// Small is a feature: this fails when something large has got in.
#[test]
fn libraries_are_small() {
    let size = |name: &str| fs::metadata(installation().join("lib").join(name)).unwrap().len();
    let (so, a) = (size("librawdb.so"), size("librawdb.a"));
    println!("librawdb.so: {so} bytes; librawdb.a: {a} bytes");
    assert!(so < 656 << 10 && a < 3 << 19, "{so} {a}");

    // A program has of librawdb.a what it uses.
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let source = root().join("examples_ffi/c/journal.c").display().to_string();
    compile(dir.path(), &["-s", "-Wl,--gc-sections", "-o", "journal", &source]);
    let program = fs::metadata(dir.path().join("journal")).unwrap().len();
    println!("a program with it: {program} bytes");
    assert!(program < so, "{program}");
}
