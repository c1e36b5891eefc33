//! The status page in a real browser. `SHOTS=DIR` keeps the pictures.

use serde_json::json;

use crate::support::bed::Bed;
use crate::support::browser::Browser;
use crate::support::eventually;
use crate::support::http::{address, get};

/// Every selector whose text sticks out to the right of the window.
const OVERFLOWS: &str = "document.documentElement.scrollWidth > window.innerWidth";

#[test]
fn the_page_in_a_browser() {
    let Some(mut browser) = Browser::start() else { return };
    let bed = Bed::new(&["orders", "prices", "SCHEDULE-DEVICE-HOST-DCDC", "returns"]);
    bed.fill("orders", 1200);
    bed.fill("prices", 345);
    let config = bed
        .config(&["orders", "prices", "SCHEDULE-DEVICE-HOST-DCDC", "returns", "not-there"])
        .set("admin", "listen", "'127.0.0.1:0'")
        .set("observe", "interval_ms", 100)
        .set("watchdog", "stall_timeout_ms", 1_000)
        .set("sink.invoices", "type", "'file'")
        .set("sink.invoices", "path", "'/dev/full'")
        .more("[[topic]]\nname = 'prices'\nsink = 'invoices'");
    let worker = bed.started(&config);
    let at = address(&worker);
    bed.await_all("orders", 0);
    eventually("prices stalls", || get(at, "/readyz").body.contains("stalled: prices"));
    eventually("the others are judged", || get(at, "/").body.matches(">idle<").count() == 1);

    browser.set(1280, 800, false);
    browser.open(&format!("http://{at}/"));
    let row = |n: u32, what: &str| {
        format!("document.querySelectorAll('#live tbody tr')[{n}].querySelector('{what}').textContent")
    };
    assert_eq!(browser.eval("document.querySelectorAll('#live tbody tr').length"), json!(5));
    // Those that are bad: what has more to read goes first.
    assert_eq!(browser.eval(&row(0, "th a")), json!("prices"));
    assert_eq!(browser.eval(&row(0, ".badge")), json!("stalled"));
    assert_eq!(browser.eval(&row(0, "td.num")), json!("345"));
    assert!(browser.eval(&row(0, ".why")).as_str().unwrap().contains("/dev/full"));
    assert_eq!(browser.eval(&row(1, "th a")), json!("not-there"));
    assert_eq!(browser.eval("document.title"), json!("(2) worker"));
    // The style has come in, and nothing was kept out by the policy.
    assert_eq!(browser.eval("getComputedStyle(document.body).backgroundColor"), json!("rgb(246, 247, 249)"));
    assert_eq!(browser.eval("document.querySelectorAll('svg.spark polyline').length"), json!(4));
    assert_eq!(browser.eval(OVERFLOWS), json!(false));
    browser.shot("light");
    browser.set(1280, 800, true);
    browser.wait("getComputedStyle(document.body).backgroundColor === 'rgb(17, 21, 27)'");
    browser.shot("dark");
    for dark in [false, true] {
        browser.set(390, 844, dark);
        assert_eq!(browser.eval(OVERFLOWS), json!(false), "on a phone nothing sticks out");
        browser.shot(if dark { "phone-dark" } else { "phone" });
    }

    // The script: it filters, and keeps the filter when it refreshes the page by itself.
    browser.set(1280, 800, false);
    let shown = "[...document.querySelectorAll('#live tbody tr')].filter((row) => !row.hidden).length";
    browser.eval("document.getElementById('attention').click()");
    assert_eq!(browser.eval(shown), json!(2));
    browser.eval("document.getElementById('attention').click()");
    let type_in = |text: &str| {
        format!(
            "(() => {{ const it = document.getElementById('filter'); it.value = '{text}'; it.dispatchEvent(new Event('input')); }})()"
        )
    };
    browser.eval(&type_in("g-ord IDLE"));
    assert_eq!(browser.eval(shown), json!(1));
    browser.eval("document.querySelector('#live').dataset.old = 'yes'");
    bed.fill("orders", 34);
    browser.wait("document.querySelector('#live').dataset.old === undefined");
    assert_eq!(browser.eval(shown), json!(1));
    assert_eq!(browser.eval("document.getElementById('late').hidden"), json!(true));

    // One topic.
    browser.open(&format!("http://{at}/topic/prices"));
    assert_eq!(browser.eval("document.querySelector('h1').firstChild.textContent.trim()"), json!("prices"));
    assert_eq!(browser.eval(OVERFLOWS), json!(false));
    browser.shot("topic");
    browser.set(390, 844, false);
    assert_eq!(browser.eval(OVERFLOWS), json!(false));
    browser.shot("topic-phone");

    // Without script it is complete, and reloads itself.
    browser.set(1280, 800, false);
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": true}));
    browser.open(&format!("http://{at}/"));
    assert_eq!(browser.eval("document.querySelectorAll('#live tbody tr').length"), json!(5));
    assert_eq!(browser.eval("getComputedStyle(document.getElementById('tools')).display"), json!("none"));
    let reload = "document.querySelector('noscript meta[http-equiv=refresh]')?.content";
    assert_eq!(browser.eval(reload), json!("10"));
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": false}));

    // The worker ends: the page says that it is old.
    browser.open(&format!("http://{at}/"));
    worker.kill9();
    browser.wait("!document.getElementById('late').hidden");
    assert!(browser.eval("document.getElementById('late').textContent").as_str().unwrap().contains("does not answer"));
    browser.shot("gone");
}

#[test]
fn six_hundred_topics_are_still_a_page() {
    let Some(mut browser) = Browser::start() else { return };
    let names: Vec<String> = (0..600).map(|n| format!("MODULE-OUTPUT-{n:03}")).collect();
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    let bed = Bed::new(&topics[..30]);
    // One consumer for all, so that the machine need not bear six hundred.
    let config = bed
        .config(&topics)
        .set("consumer", "multi_consumer_mode", false)
        .set("admin", "listen", "'127.0.0.1:0'")
        .set("observe", "interval_ms", 200);
    let worker = bed.start(&config);
    let at = address(&worker);
    eventually("all are judged", || {
        let page = get(at, "/").body;
        page.matches(">missing<").count() == 570 && page.contains("<li class=\"badge\">30 empty topic</li>")
    });
    browser.set(1280, 800, false);
    browser.open(&format!("http://{at}/"));
    assert_eq!(browser.eval("document.querySelectorAll('#live tbody tr').length"), json!(600));
    let took = browser.eval(
        "(() => { const it = document.getElementById('filter'), from = performance.now(); it.value = 'output-012'; \
         it.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - from; })()",
    );
    println!("filtering 600 rows took {took} ms");
    assert_eq!(browser.eval("document.getElementById('shown').textContent"), json!("1 of 600 topics shown"));
    browser.shot("600-filtered");
    bed.stop(worker);
}
