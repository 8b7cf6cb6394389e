//! How is it told? One page of tables, and a plot for each scene.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::scene::Scene;
use super::world::Run;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const MARGIN: f64 = 50.0;
const COLOURS: [&str; 6] = ["#1b6ca8", "#2a9d4a", "#999999", "#e08e0b", "#c2185b", "#6a4fb3"];

const HEAD: &str = "\
# How the policies behave when backends do not

A simulation in virtual time. What decides is the program's own code at its own defaults: policies, counts, estimates,
the state machine with probes, ejections and trials, tiers, slow start, retries and their budget. Made up are the
clients, the network and the backends. A backend works on 8 requests at once, each for 20 ms on average (exponentially
distributed), and keeps the others in line; clients wait 5 s. Requests arrive by chance, in a minute of ten backends at
60% of what they can carry unless a scene says otherwise; all of them may be sent twice.

Made by `cargo run --release --example simulate` (some seconds; without `--release` some minutes), which always gives the
same numbers; with names of scenes behind it (`one-slow`) it only shows their tables. *Odd* is the share of all attempts
that went to the backends which a scene is about, beside the share that their number would give them; latencies are
those of requests that were answered. The plots show the latency that 99 in 100 requests stay under, second by second.
For scenes with real connections, beside nginx and HAProxy, see [scenes](scenes.md).
";

type Told<'a> = (Scene, Vec<(&'a str, Run)>);

/// Writes `docs/balancing.md` and the plots beside it.
pub(crate) fn write(told: &[Told<'_>]) -> io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    std::fs::create_dir_all(docs.join("balancing"))?;
    let mut page = HEAD.to_owned();
    for (scene, runs) in told {
        let _ = write!(page, "\n## {}\n\n{}\n\n{}", scene.title, scene.what, table(scene, runs));
        if scene.seconds > 1 {
            std::fs::write(docs.join(format!("balancing/{}.svg", scene.file)), plot(scene, runs))?;
            let _ = write!(page, "\n![{} over time](balancing/{}.svg)\n", scene.title, scene.file);
        }
    }
    std::fs::write(docs.join("balancing.md"), page)
}

pub(crate) fn table(scene: &Scene, runs: &[(&str, Run)]) -> String {
    let mut table = "| Policy | p50 ms | p99 ms | errors | odd | busiest beside the average |\n".to_owned();
    table.push_str("| --- | ---: | ---: | ---: | ---: | ---: |\n");
    for (name, run) in runs {
        let mut times: Vec<_> = run.answers.iter().filter(|(_, _, good)| *good).map(|&(_, took, _)| took).collect();
        times.sort_unstable();
        let failed = (run.answers.len() - times.len()) as f64 / run.answers.len() as f64 * 100.0;
        let all: u64 = run.attempts.iter().sum();
        let odd = run.attempts[..scene.odd].iter().sum::<u64>() as f64 / all as f64 * 100.0;
        let due = scene.odd as f64 / scene.backends as f64 * 100.0;
        let busiest = *run.attempts.iter().max().unwrap() as f64 * scene.backends as f64 / all as f64;
        let _ = writeln!(
            table,
            "| {name} | {} | {} | {failed:.2}% | {odd:.1}% of {due:.0}% | {busiest:.2} |",
            ms(quantile(&times, 0.5)),
            ms(quantile(&times, 0.99)),
        );
    }
    table
}

fn quantile(sorted: &[u64], share: f64) -> u64 {
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

fn ms(micros: u64) -> String {
    format!("{:.0}", micros as f64 / 1e3)
}

/// The 99% quantile of each second, on a logarithmic scale from 10 ms to 10 s.
fn plot(scene: &Scene, runs: &[(&str, Run)]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<title>{}: p99 over time</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         fill=\"white\"/>\n",
        scene.title
    );
    for (label, millis) in [("10 ms", 10.0), ("100 ms", 100.0), ("1 s", 1_000.0), ("10 s", 10_000.0)] {
        let y = height_of(millis);
        let _ = writeln!(
            svg,
            "<line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"4\" \
             y=\"{:.1}\">{label}</text>",
            WIDTH - 10.0,
            y + 4.0
        );
    }
    for ((name, run), (colour, row)) in runs.iter().zip(COLOURS.iter().zip(0..)) {
        let points: Vec<_> = by_second(scene, run)
            .into_iter()
            .map(|(second, p99)| format!("{:.1},{:.1}", place_of(scene, second), height_of(p99 as f64 / 1e3)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>\n<text x=\"{:.0}\" \
             y=\"{:.0}\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            MARGIN + f64::from(row) * 110.0,
            HEIGHT - 8.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn by_second(scene: &Scene, run: &Run) -> Vec<(u64, u64)> {
    let mut seconds = vec![Vec::new(); scene.seconds as usize];
    for &(came, took, good) in &run.answers {
        if let Some(second) = seconds.get_mut((came / 1_000_000) as usize).filter(|_| good) {
            second.push(took);
        }
    }
    let told = (0..).zip(&mut seconds).filter(|(_, times)| !times.is_empty());
    told.map(|(second, times)| {
        times.sort_unstable();
        (second, quantile(times, 0.99))
    })
    .collect()
}

fn place_of(scene: &Scene, second: u64) -> f64 {
    MARGIN + second as f64 / scene.seconds as f64 * (WIDTH - MARGIN - 10.0)
}

fn height_of(millis: f64) -> f64 {
    let (top, bottom) = (12.0, HEIGHT - 34.0);
    bottom - (millis.max(10.0).log10() - 1.0) / 3.0 * (bottom - top)
}
