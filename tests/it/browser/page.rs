//! A page in a tab of its own: what a person does with it, and what it does wrong.

use std::path::Path;
use std::time::Instant;

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Browser, PATIENCE};

/// The size of a window.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    width: u32,
    height: u32,
    /// Whether it is a phone: touched, and laid out for its width.
    phone: bool,
}

impl Screen {
    /// A small laptop.
    pub const DESKTOP: Self = Self { width: 1280, height: 800, phone: false };
    /// A phone of 390 points.
    pub const PHONE: Self = Self { width: 390, height: 844, phone: true };
}

/// Notes layout shifts from the first moment on, and whether a person had just done something.
const WATCH: &str = "window.shifts = []; new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.shifts.push([entry.value, entry.hadRecentInput,
        entry.sources.map((source) => source.node && (source.node.id || source.node.className || source.node.nodeName)).join(' ')]);
}).observe({type: 'layout-shift', buffered: true});";

/// A page that is open.
pub struct Page<'b> {
    browser: &'b Browser,
    target: String,
    session: String,
    url: String,
}

impl<'b> Page<'b> {
    /// Opens a file, with what stands behind the `#` of its address, and waits until it is loaded.
    pub fn open(browser: &'b Browser, path: &Path, hash: &str, screen: Screen) -> Self {
        let target = browser.call(None, "Target.createTarget", json!({"url": "about:blank"}));
        let target = target["targetId"].as_str().unwrap().to_owned();
        let attached = browser.call(None, "Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        let url = format!("file://{}", path.canonicalize().unwrap().display());
        let page = Self { browser, target, session, url };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.screen(screen);
        page.media(false, false);
        page.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": WATCH}));
        page.go(hash);
        page
    }

    /// Loads the page anew with another hash, as a link from elsewhere would.
    pub fn go(&self, hash: &str) {
        // Another hash alone would load nothing.
        self.call("Page.navigate", json!({"url": "about:blank"}));
        let url = if hash.is_empty() { self.url.clone() } else { format!("{}#{hash}", self.url) };
        let went = self.call("Page.navigate", json!({"url": url}));
        assert!(went["errorText"].is_null(), "{url}: {went}");
        self.until("document.readyState === 'complete' && location.protocol === 'file:'");
    }

    /// Loads the page anew as it is.
    pub fn reload(&self) {
        self.eval("window.old = true");
        self.call("Page.reload", json!({}));
        self.until("!window.old && document.readyState === 'complete'");
    }

    /// Makes the window another one.
    pub fn screen(&self, screen: Screen) {
        let Screen { width, height, phone } = screen;
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": if phone { 2 } else { 1 }, "mobile": phone});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        self.call("Emulation.setTouchEmulationEnabled", json!({"enabled": phone}));
    }

    /// What the page is shown on: in dark or light colours, on a screen or on paper.
    pub fn media(&self, dark: bool, print: bool) {
        let scheme = if dark { "dark" } else { "light" };
        // Nothing glides: a click meets what it was meant for.
        let still = json!({"name": "prefers-reduced-motion", "value": "reduce"});
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}, still]);
        self.call(
            "Emulation.setEmulatedMedia",
            json!({"media": if print { "print" } else { "" }, "features": features}),
        );
    }

    /// What an expression comes to; a promise is waited for.
    ///
    /// # Panics
    /// With what it throws.
    pub fn eval(&self, expression: &str) -> Value {
        let how = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut done = self.call("Runtime.evaluate", how);
        assert!(done["exceptionDetails"].is_null(), "{expression}: {}", done["exceptionDetails"]);
        done["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub fn until(&self, expression: &str) {
        let begin = Instant::now();
        while self.try_eval(expression) != Some(true) {
            assert!(begin.elapsed() < PATIENCE, "never: {expression}\n{}", self.problems().join("\n"));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Whether an expression is true; `None` while it cannot be said, as between two pages.
    fn try_eval(&self, expression: &str) -> Option<bool> {
        let how = json!({"expression": format!("Boolean({expression})"), "returnByValue": true});
        self.call("Runtime.evaluate", how)["result"]["value"].as_bool()
    }

    /// Presses the mouse's button in the middle of what a selector finds first.
    pub fn click(&self, selector: &str) {
        let place = self.eval(&format!(
            "(() => {{ const found = document.querySelector({}); if (!found) return null;
               found.scrollIntoView({{block: 'nearest', inline: 'nearest'}}); const box = found.getBoundingClientRect();
               return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        ));
        assert!(place.is_array(), "nothing is `{selector}`");
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Presses a key by its name: `ArrowDown`, `Enter`, `Tab`, `/`.
    pub fn key(&self, name: &str) {
        self.press(name, 0);
    }

    /// Presses a key together with the shift key.
    pub fn shift_key(&self, name: &str) {
        self.press(name, 8);
    }

    fn press(&self, name: &str, modifiers: u32) {
        let code = match name {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "Delete" => 46,
            " " => 32,
            "PageUp" => 33,
            "PageDown" => 34,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            other => other.chars().next().map_or(0, |letter| letter.to_ascii_uppercase() as u32),
        };
        let mut event = json!({"type": "keyDown", "key": name, "windowsVirtualKeyCode": code, "modifiers": modifiers});
        if name == "Enter" {
            event["text"] = json!("\r");
        } else if name.chars().count() == 1 {
            event["text"] = json!(name);
        }
        self.call("Input.dispatchKeyEvent", event.clone());
        event["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", event);
    }

    /// Writes a text where the focus is.
    pub fn insert(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Milliseconds from the navigation to the first text or picture, as the browser counts them.
    pub fn first_paint(&self) -> f64 {
        let paint = "performance.getEntriesByType('paint').find((entry) => entry.name === 'first-contentful-paint')";
        self.until(&format!("document.visibilityState !== 'visible' || {paint}"));
        self.eval(&format!("{paint}.startTime")).as_f64().unwrap()
    }

    /// The sum of all layout shifts since the page was loaded, but of those that follow at once what a person did: as browsers
    /// count it.
    pub fn shift(&self) -> f64 {
        self.eval("window.shifts.reduce((sum, [value, asked]) => sum + (asked ? 0 : value), 0)").as_f64().unwrap()
    }

    /// A picture of what the window shows, for people.
    pub fn screenshot(&self, path: &Path) {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// The bytes of the page printed as PDF.
    pub fn pdf(&self) -> Vec<u8> {
        let printed = self.call("Page.printToPDF", json!({"printBackground": true}));
        base64::engine::general_purpose::STANDARD.decode(printed["data"].as_str().unwrap()).unwrap()
    }

    /// What went wrong since this was last asked: errors and warnings on the console, exceptions, what the browser itself found
    /// fault with, and everything that was fetched beside the file itself.
    pub fn problems(&self) -> Vec<String> {
        self.browser.events(&self.session).iter().filter_map(|event| self.problem(event)).collect()
    }

    fn problem(&self, event: &Value) -> Option<String> {
        let params = &event["params"];
        match event["method"].as_str()? {
            "Runtime.consoleAPICalled" if params["type"] == "error" || params["type"] == "warning" => {
                let text = |value: &Value| match &value["value"] {
                    Value::String(text) => text.clone(),
                    Value::Null => value["description"].as_str().unwrap_or_default().to_owned(),
                    other => other.to_string(),
                };
                let said: Vec<String> = params["args"].as_array()?.iter().map(text).collect();
                Some(format!("console: {}", said.join(" ")))
            }
            "Runtime.exceptionThrown" => {
                let thrown = &params["exceptionDetails"];
                let what = thrown["exception"]["description"].as_str().or(thrown["text"].as_str())?;
                Some(format!("exception: {what}"))
            }
            "Log.entryAdded" if params["entry"]["level"] == "error" || params["entry"]["level"] == "warning" => {
                Some(format!("log: {}", params["entry"]["text"].as_str()?))
            }
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str()?;
                let own = url.split('#').next()? == self.url || url == "about:blank";
                let inside = url.starts_with("data:") || url.starts_with("blob:");
                (!own && !inside).then(|| format!("request: {url}"))
            }
            _ => None,
        }
    }

    fn call(&self, method: &str, params: Value) -> Value {
        self.browser.call(Some(&self.session), method, params)
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.browser.call(None, "Target.closeTarget", json!({"targetId": self.target}));
        }
    }
}
