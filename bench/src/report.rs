//! From samples to a table on the terminal, and to `benchmarks.md` with its plots.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::plot;
use crate::workloads::{self, Metric, Target, Unit, Workload, OURS};
use crate::Samples;

pub struct Report {
    root: PathBuf,
    rounds: usize,
    small: bool,
    machine: String,
    /// The rows of the table of targets.
    targets: String,
    counts: [usize; 2],
    body: String,
    plots: Vec<(String, String)>,
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').next().unwrap().to_owned()
}

fn machine(root: &Path, dir: &Path) -> String {
    let memory = field("/proc/meminfo", "MemTotal");
    let kib: f64 = memory.split(' ').next().unwrap().parse().unwrap();
    let file_system = output(Command::new("stat").args(["-f", "-c", "%T"]).arg(dir));
    let mount = output(Command::new("findmnt").args(["-no", "FSTYPE,OPTIONS", "-T"]).arg(dir));
    assert!(mount.starts_with("ext4"), "RAWDB_BENCH_DIR is on {file_system}, not on ext4");
    let rows = [
        ("processor", format!("{}, {} cores", field("/proc/cpuinfo", "model name"), cores())),
        ("memory", format!("{:.1} GiB", kib / f64::from(1 << 20))),
        ("kernel", output(Command::new("uname").arg("-sr"))),
        ("file system", mount),
        ("compiler", output(Command::new("rustc").arg("--version"))),
        ("date", output(Command::new("date").args(["-u", "+%F %H:%M UTC"]))),
        (
            "rawdb",
            output(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root)),
        ),
    ];
    let mut table = String::from("| | |\n|---|---|\n");
    for (name, value) in rows {
        writeln!(table, "| {name} | {} |", value.split_whitespace().collect::<Vec<_>>().join(" "))
            .unwrap();
    }
    table
}

fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

fn least(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::NAN, f64::min)
}

fn most(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::NAN, f64::max)
}

/// Three significant digits.
fn digits(value: f64) -> String {
    let decimals =
        if value == 0.0 { 0.0 } else { (2.0 - value.abs().log10().floor()).clamp(0.0, 3.0) };
    format!("{value:.0$}", decimals as usize)
}

fn quantity(unit: Unit, value: f64) -> String {
    if value.is_nan() {
        return "-".into();
    }
    let steps: &[(f64, &str)] = match unit {
        Unit::Times => &[(1.0, "")],
        Unit::Seconds => &[(1e-9, " ns"), (1e-6, " us"), (1e-3, " ms"), (1.0, " s")],
        Unit::Bytes => &[(1.0, " B"), (1024.0, " KiB"), (1048576.0, " MiB")],
    };
    let step = steps.iter().rev().find(|step| value.abs() >= step.0 * 0.9999).unwrap_or(&steps[0]);
    format!("{}{}", digits(value / step.0), step.1)
}

fn verdict(reached: bool, measured: f64, target: f64) -> String {
    if reached {
        return "reached".into();
    }
    format!("missed by {:.0} %", (measured / target - 1.0).abs() * 100.0)
}

impl Report {
    pub fn begin(root: &Path, dir: &Path, rounds: usize, small: bool) -> Report {
        Report {
            root: root.to_owned(),
            rounds,
            small,
            machine: machine(root, dir) + &format!("| load before | {} |\n", load()),
            targets: String::new(),
            counts: [0; 2],
            body: String::new(),
            plots: Vec::new(),
        }
    }

    fn target(
        &mut self,
        what: &str,
        against: &str,
        target: String,
        measured: String,
        verdict: &str,
    ) {
        self.counts[usize::from(verdict == "reached")] += 1;
        writeln!(self.targets, "| {what} | {against} | {target} | {measured} | {verdict} |")
            .unwrap();
    }

    pub fn add(&mut self, workload: &Workload, names: &[&str], samples: &Samples) {
        let ours = names.iter().position(|name| *name == OURS).unwrap();
        let value = |contender: usize, metric: usize| median(&samples[contender][metric]);

        let mut missed = false;
        for target in &workload.targets {
            let (metric, against, aim, measured, verdict) = match target {
                Target::Speedup { metric, peers, by } => {
                    let best = peers
                        .iter()
                        .map(|peer| names.iter().position(|name| name == peer).unwrap())
                        .min_by(|a, b| value(*a, *metric).total_cmp(&value(*b, *metric)))
                        .unwrap();
                    let ratio = value(best, *metric) / value(ours, *metric);
                    let verdict = verdict(ratio >= *by, ratio, *by);
                    let ratio = format!("{}x", digits(ratio));
                    (*metric, names[best].to_owned(), format!("{by}x"), ratio, verdict)
                }
                Target::AtLeast { metric, value: aim } => {
                    let unit = workload.metrics[*metric].unit;
                    let measured = value(ours, *metric);
                    let verdict = verdict(measured >= *aim, measured, *aim);
                    let aim = format!("at least {}", quantity(unit, *aim));
                    (*metric, "-".into(), aim, quantity(unit, measured), verdict)
                }
                Target::AtMost { metric, value: aim } => {
                    let unit = workload.metrics[*metric].unit;
                    let measured = value(ours, *metric);
                    let verdict = verdict(measured <= *aim, measured, *aim);
                    let aim = format!("at most {}", quantity(unit, *aim));
                    (*metric, "-".into(), aim, quantity(unit, measured), verdict)
                }
                Target::Within { metric, of, factor } => {
                    let ratio = value(ours, *metric) / value(ours, *of);
                    let verdict = verdict(ratio <= *factor, ratio, *factor);
                    let against = format!("itself, {}", workload.metrics[*of].name);
                    let aim = format!("at most {factor}");
                    (*metric, against, aim, digits(ratio), verdict)
                }
            };
            missed |= verdict != "reached";
            let what = format!("{}: {}", workload.title, workload.metrics[metric].name);
            self.target(&what, &against, aim, measured, &verdict);
        }

        let mut text = format!("\n## {}\n\n{}\n", workload.title, wrap(workload.how));
        for (number, metric) in workload.metrics.iter().enumerate() {
            text += &table(metric, number, ours, names, samples);
        }
        if missed && !workload.causes.is_empty() {
            write!(text, "\nWhy a target is missed: {}\n", wrap(workload.causes)).unwrap();
        }
        for (name, times) in std::mem::take(&mut *workloads::WRONG.lock().unwrap()) {
            write!(
                text,
                "\n**{name} did not give back what had been written to it**: in {times} of its \
                 regions\nthat were read back after the clock had stopped.\n"
            )
            .unwrap();
        }
        for (name, times) in std::mem::take(&mut *workloads::PANICKED.lock().unwrap()) {
            write!(text, "\n**{name} panicked** in {times} of its rounds, which do not count.\n")
                .unwrap();
        }
        print!("{text}");
        for (file, title, svg) in plots(workload, names, samples) {
            write!(text, "\n![{title}](benchmarks/{file})\n").unwrap();
            self.plots.push((file, svg));
        }
        self.body += &text;
    }

    /// What the library weighs: figures of one build each.
    fn leanness(&mut self) {
        let cargo = |arguments: &[&str]| {
            let mut command = Command::new("cargo");
            command.args(arguments).current_dir(&self.root);
            command
        };
        // A smoke run takes what is there.
        let built = crate::target_dir(&self.root);
        let target = if self.small { built } else { built.join("bench-build") };
        let start = std::time::Instant::now();
        // As it is shipped: an rlib beside them would keep the libraries from link-time optimisation.
        let crates = ["--lib", "--crate-type", "cdylib,staticlib"];
        output(
            cargo(&["rustc", "--release", "--locked"])
                .args(crates)
                .arg("--target-dir")
                .arg(&target),
        );
        let build = start.elapsed().as_secs_f64();
        let size = fs::metadata(target.join("release/librawdb.so")).unwrap().len() as f64;
        if !self.small {
            fs::remove_dir_all(&target).unwrap();
        }
        let count = |depth: &str| {
            let tree = cargo(&[
                "tree", "-e", "normal", "--target", "all", "--prefix", "none", "--depth", depth,
            ])
            .output()
            .unwrap();
            let text = String::from_utf8(tree.stdout).unwrap();
            let names: std::collections::BTreeSet<&str> =
                text.lines().filter_map(|line| line.split(' ').next()).collect();
            names.len() - 1
        };
        let aim = 500.0 * 1024.0;
        let verdict = verdict(size < aim, size, aim);
        let text = format!(
            "\n## Leanness\n\n| | |\n|---|---|\n| librawdb.so, stripped | {} |\n\
             | dependencies of its own | {} |\n| all dependencies | {} |\n\
             | build from nothing, sources downloaded, {} cores | {} |\n\n\
             A good part of the library is the standard library's code for printing where a panic \
             came\nfrom, which a stable compiler cannot leave out.\n",
            quantity(Unit::Bytes, size),
            count("1"),
            count("99"),
            cores(),
            quantity(Unit::Seconds, build),
        );
        print!("{text}");
        self.body += &text;
        let so = quantity(Unit::Bytes, size);
        self.target("Size of librawdb.so, stripped", "-", "below 500 KiB".into(), so, &verdict);
    }

    pub fn finish(mut self, out: &Path) {
        self.leanness();
        let [missed, reached] = self.counts;
        let targets = format!(
            "| workload | against | target | measured | |\n|---|---|---|---|---|\n{}\n\
             {reached} targets reached, {missed} missed.\n",
            self.targets
        );
        print!("\n{targets}");
        let mut document = String::from("# Benchmarks\n\n");
        document += &wrap(
            "Written by `make bench`; not to be edited. rawdb is called through its C interface \
             (`librawdb.so`, release build), its peers as what they are, Rust and C libraries. All \
             contenders take turns in one run, in directories of their own.",
        );
        writeln!(
            document,
            "\n{} rounds; figures are medians, with the least and the most. A ratio is the \
             contender's time\ndivided by that of rawdb: above 1, rawdb is faster.",
            self.rounds
        )
        .unwrap();
        if self.small {
            document += "\n**A smoke run: these figures mean nothing.**\n";
        }
        write!(
            document,
            "\n## Machine\n\n{}| load after | {} |\n\n## Targets\n\n{targets}\n{}{}",
            self.machine,
            load(),
            wrap(workloads::limits_note()),
            self.body
        )
        .unwrap();
        let plots = out.join("benchmarks");
        fs::create_dir_all(&plots).unwrap();
        for (file, svg) in &self.plots {
            fs::write(plots.join(file), svg).unwrap();
        }
        fs::write(out.join("benchmarks.md"), document).unwrap();
    }
}

fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if line.len() + word.len() > 99 {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

fn table(metric: &Metric, number: usize, ours: usize, names: &[&str], samples: &Samples) -> String {
    let reference = median(&samples[ours][number]);
    let ratio = metric.unit == Unit::Seconds;
    let mut text = format!("\n| {} | median | least | most |", metric.name);
    text += if ratio { " ratio |\n|---|--:|--:|--:|--:|\n" } else { "\n|---|--:|--:|--:|\n" };
    for (name, samples) in names.iter().zip(samples) {
        let samples = &samples[number];
        if samples.is_empty() {
            continue;
        }
        let middle = median(samples);
        let [m, l, h] =
            [middle, least(samples), most(samples)].map(|value| quantity(metric.unit, value));
        write!(text, "| {name} | {m} | {l} | {h} |").unwrap();
        if ratio {
            write!(text, " {} |", digits(middle / reference)).unwrap();
        }
        text.push('\n');
    }
    text
}

/// File, title and contents.
fn plots(workload: &Workload, names: &[&str], samples: &Samples) -> Vec<(String, String, String)> {
    if workload.curves.is_empty() {
        let panels: Vec<_> = workload
            .metrics
            .iter()
            .enumerate()
            .map(|(number, metric)| {
                let rows = names.iter().zip(samples).filter_map(|(name, samples)| {
                    let samples = &samples[number];
                    let median = median(samples);
                    (median > 0.0).then(|| plot::Range {
                        name,
                        median,
                        least: least(samples).max(median / 1000.0),
                        most: most(samples),
                        label: quantity(metric.unit, median),
                    })
                });
                (format!("{}: {}", workload.title, metric.name), rows.collect())
            })
            .collect();
        let svg =
            plot::ranges(&panels, |panel, value| quantity(workload.metrics[panel].unit, value));
        return vec![(format!("{}.svg", workload.id), workload.title.to_owned(), svg)];
    }
    let curve = |curve: &workloads::Curve| {
        let last = curve.first + curve.values.len();
        let curves: Vec<(&str, Vec<f64>)> = names
            .iter()
            .zip(samples)
            .map(|(name, samples)| {
                (*name, samples[curve.first..last].iter().map(|samples| median(samples)).collect())
            })
            .filter(|curve: &(&str, Vec<f64>)| curve.1.iter().all(|value| !value.is_nan()))
            .collect();
        let unit = workload.metrics[curve.first].unit;
        let svg = plot::curves(curve.title, curve.x, &curve.values, &curves, |value| {
            quantity(unit, value)
        });
        let file = format!("{}-{}.svg", workload.id, curve.first);
        (file, format!("{}: {}", workload.title, curve.title), svg)
    };
    workload.curves.iter().map(curve).collect()
}
