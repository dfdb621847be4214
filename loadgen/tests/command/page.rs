//! The pages of `--html`: their markup, and their layout in a browser.

use std::process::{Command, Stdio};

use crate::place::Place;
use crate::shared::{self, Measured};

/// Returns the pages of all commands. Measures them at the same time, as most of them wait.
fn pages() -> Vec<(&'static str, &'static Measured)> {
    type Measure = fn() -> &'static Measured;
    let all: [(&'static str, Measure); 7] = [
        ("run", shared::open_run),
        ("closed", shared::closed_run),
        ("too-fast", shared::overloaded_run),
        ("sweep", shared::sweep_with_a_knee),
        ("device", shared::device),
        ("rules", shared::rules),
        ("bench", shared::suite),
    ];
    std::thread::scope(|scope| {
        let started = all.map(|(name, measure)| (name, scope.spawn(measure)));
        started.map(|(name, measured)| (name, measured.join().unwrap())).into()
    })
}

fn count(page: &str, what: &str) -> usize {
    page.matches(what).count()
}

/// Checks that every plot has axes with units and points with tooltips.
fn plots_have_axes(name: &str, page: &str) {
    for svg in page.split("<svg ").skip(1).map(|rest| rest.split("</svg>").next().unwrap()) {
        for part in ["class=\"x\"", "class=\"y\"", "class=\"label\"", "<title>", "aria-label="] {
            assert!(svg.contains(part), "{name}: {part} is not in {svg}");
        }
        let labels = svg.split("class=\"y\"").skip(1);
        let texts = labels.map(|rest| rest.split('>').nth(1).unwrap().split('<').next().unwrap());
        let texts: Vec<&str> = texts.collect();
        assert!(texts.len() >= 2, "{name}: {texts:?}");
    }
}

/// A script that measures every frame: overflow, the size of letters, and names over other text.
const HARNESS: &str = r#"<!doctype html><body><script>
addEventListener('load', () => setTimeout(() => {
  const found = [];
  for (const frame of document.querySelectorAll('iframe')) {
    const doc = frame.contentDocument, root = doc.documentElement;
    const shown = [...doc.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width > 0);
    const body = parseFloat(frame.contentWindow.getComputedStyle(doc.body).fontSize);
    let largest = 0, outside = 0, covered = 0;
    for (const svg of shown) {
      const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
      largest = Math.max(largest, 13 * scale);
      for (const text of svg.querySelectorAll('text')) {
        const b = text.getBoundingClientRect();
        if (b.left < box.left - 1 || b.right > box.right + 1) outside += ' "' + text.textContent + '"';
      }
      for (const name of svg.querySelectorAll('text.name')) {
        const a = name.getBoundingClientRect();
        for (const other of svg.querySelectorAll('text')) {
          const b = other.getBoundingClientRect();
          const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
          const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
          if (other !== name && across > 1 && down > 3) covered += ' "' + name.textContent + '"';
        }
      }
    }
    const over = root.scrollWidth - root.clientWidth;
    const back = frame.contentWindow.getComputedStyle(doc.body).backgroundColor;
    found.push([frame.title, frame.width, 'overflow', over, 'plots', shown.length, 'letters', largest <= body, 'outside', outside, 'covered', covered, back].join(' '));
  }
  document.body.innerHTML = '<pre id=found>' + found.join('\n') + '</pre>';
}, 200));
</script>"#;

fn browser() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        let mut command = Command::new(name);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

/// Loads all pages at both widths in one browser.
fn shown(place: &Place, browser: &str, pages: &[(&str, &String)], dark: bool) -> (String, String) {
    let mut harness = HARNESS.to_owned();
    for (name, page) in pages {
        let escaped = page.replace('&', "&amp;").replace('"', "&quot;");
        for width in [390, 1280] {
            harness += &format!(
                "<iframe title=\"{name}\" width=\"{width}\" height=\"900\" style=\"border:0\" \
                 srcdoc=\"{escaped}\"></iframe>"
            );
        }
    }
    std::fs::write(place.path("harness.html"), harness).unwrap();
    let scheme = if dark { "0" } else { "1" };
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"])
        .args(["--window-size=1400,1000", "--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("--user-data-dir={}", place.path("profile").display()))
        .arg(format!("file://{}", place.path("harness.html").display()))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr))
}

#[test]
fn pages_need_no_network_and_fit_every_screen() {
    let pages: Vec<(&str, &String)> = pages()
        .into_iter()
        .map(|(name, measured)| {
            assert!(matches!(measured.code, Some(0 | 99)), "{}", measured.line);
            (name, &measured.page)
        })
        .collect();
    for (name, page) in &pages {
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{name}");
        for outside in ["http:", "https:", "<script", "<link", "@import", "url(", "NaN", ">inf"] {
            assert!(!page.contains(outside), "{name}: {outside}");
        }
        // Date, host and command line.
        assert!(page.contains("class=\"where\"") && page.contains("--html"), "{name}");
        assert!(page.contains("host ") && page.contains("Z, "), "{name}");
        plots_have_axes(name, page);
    }
    let page = |wanted: &str| &pages.iter().find(|(name, _)| *name == wanted).unwrap().1;
    let run = page("run");
    for part in ["50 %", "75 %", "p50 ", "p99 ", "max ", "In the ring over time", "commits/s"] {
        assert!(run.contains(part), "{part}");
    }
    // Latencies of records precede the figures of the engine.
    let at = |what: &str| run.find(what).unwrap_or_else(|| panic!("{what}"));
    assert!(at("Latency of records over time") < at("Latency by percentile"));
    assert!(at("Latency by percentile") < at("Commits over time"));
    assert!(page("too-fast").contains("TOO FAST"));
    assert!(page("rules").contains("PASS") || page("rules").contains("class=\"warn\""));
    let sweep = page("sweep");
    assert!(sweep.contains("line d dashed") && sweep.contains("p99"), "{sweep}");
    assert!(count(page("bench"), "<tr title") >= 2);
    let Some(browser) = browser() else {
        #[allow(clippy::print_stderr, reason = "why nothing more is tested")]
        let () = eprintln!("skipped: there is no chromium here");
        return;
    };
    let place = Place::new("page");
    for dark in [false, true] {
        let (dom, log) = shown(&place, browser, &pages, dark);
        let found = dom.split("id=\"found\">").nth(1).unwrap_or_else(|| panic!("{dom}{log}"));
        let lines: Vec<&str> = found.split("</pre>").next().unwrap().lines().collect();
        assert_eq!(lines.len(), 2 * pages.len(), "{found}");
        for line in lines {
            assert!(line.contains(" overflow 0 "), "dark: {dark}: {line}");
            assert!(line.contains(" letters true "), "{line}");
            assert!(line.contains(" outside 0 "), "{line}");
            assert!(line.contains(" covered 0 "), "{line}");
            let back = if dark { "rgb(18, 22, 29)" } else { "rgb(255, 255, 255)" };
            assert!(line.ends_with(back), "dark: {dark}: {line}");
        }
        assert!(!log.contains("CONSOLE"), "{log}");
    }
}
