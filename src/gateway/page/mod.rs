//! The page for browsers, `/ui/`: files that are built in, sent as they are.
//!
//! Owns how files for browsers are embedded, packed and sent, and which headers protect them. What the page shows comes
//! from the same routes that any other client asks; the files themselves need no key and hold no data.
//!
//! - `assets.rs`: the embedded files, ready to be sent
//! - `sending.rs`: the response with a file: packed or not, 304, headers

mod assets;
mod sending;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, LOCATION, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use tokio::sync::OnceCell;

use self::assets::{Asset, Assets};
use self::sending::PagePolicy;
use super::bounds::RETRY_AFTER_UNKNOWN;
use super::openapi::openapi_document;
use super::routes::route::PageRoute;
use crate::blocking_pool::BlockingPool;
use crate::refusal::Refusal;
use crate::settings::options::Ui;

/// The document of the page, among the files of `ui/`.
const INDEX: &str = "index.html";

/// Longest wait for another request that makes the description of the API, which takes a few milliseconds.
const OPENAPI_WAIT: Duration = Duration::from_secs(10);

/// Serves the pages for browsers.
pub(super) struct Pages {
    /// `None` with `UI_ENABLED=false`.
    assets: Option<Assets>,
    /// The description of the API, made for the first request for it.
    openapi: OnceCell<Asset>,
    /// Makes it, which would hold the other requests of a serving thread.
    making: BlockingPool,
}

impl Pages {
    /// Creates the pages; none if they are switched off. Must be called on the runtime that outlives all requests.
    pub(super) fn new(settings: &Ui) -> Self {
        let assets = settings.ui_enabled.then(Assets::default);
        Self { assets, openapi: OnceCell::new(), making: BlockingPool::new(1, OPENAPI_WAIT) }
    }

    /// Returns whether there are pages.
    fn are_served(&self) -> bool {
        self.assets.is_some()
    }

    /// Returns whether this one is served: all are with `UI_ENABLED`, and what is for programs always is.
    pub(super) fn has(&self, route: PageRoute) -> bool {
        route == PageRoute::OpenApi || self.are_served()
    }

    /// Returns whether a request for `/` is a browser's, which is led to the page.
    pub(super) fn leads_from_root(&self, parts: &Parts, path: &str) -> bool {
        path == "/" && self.are_served() && parts.method == Method::GET && accepts_html(&parts.headers)
    }

    /// Answers a request for a page or one of its files.
    ///
    /// # Errors
    /// [`Refusal::RouteNotFound`] if there is no such file, or no page at all; [`Refusal::ShuttingDown`].
    pub(super) async fn respond(&self, route: PageRoute, parts: &Parts) -> Result<Response<Bytes>, Refusal> {
        if route == PageRoute::OpenApi {
            let make = || self.making.run(|| Asset::of_json(openapi_document()));
            let openapi = self.openapi.get_or_try_init(make).await;
            let openapi = openapi.map_err(|_| Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN))?;
            return Ok(sending::respond(openapi, &parts.headers, PagePolicy::Strict));
        }
        self.file(route, parts)
    }

    fn file(&self, route: PageRoute, parts: &Parts) -> Result<Response<Bytes>, Refusal> {
        let assets = self.assets.as_ref().ok_or(Refusal::RouteNotFound)?;
        match route {
            PageRoute::OpenApi => Err(Refusal::RouteNotFound),
            PageRoute::Docs => viewer(assets, parts, "docs"),
            PageRoute::Redoc => viewer(assets, parts, "redoc"),
            PageRoute::Ui => match parts.uri.path().trim_start_matches('/').strip_prefix("ui/") {
                // Its links are relative to the folder, so that it works below any path of a proxy.
                None => Ok(redirect("ui/")),
                Some(name) => {
                    let name = if name.is_empty() { INDEX } else { name };
                    let asset = assets.find(name).ok_or(Refusal::RouteNotFound)?;
                    Ok(sending::respond(&asset, &parts.headers, PagePolicy::Strict))
                }
            },
        }
    }
}

/// Sends the document of a viewer of the API's description.
fn viewer(assets: &Assets, parts: &Parts, name: &str) -> Result<Response<Bytes>, Refusal> {
    if parts.uri.path().ends_with('/') {
        // Its links are relative to the root.
        return Ok(redirect(if name == "docs" { "../docs" } else { "../redoc" }));
    }
    let asset = assets.find(&format!("{name}/{INDEX}")).ok_or(Refusal::RouteNotFound)?;
    Ok(sending::respond(&asset, &parts.headers, PagePolicy::InlineStyles))
}

/// Returns whether the client wants a document for people. Programs accept anything, or JSON.
fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html"))
}

/// Leads a browser to another address, relative to the one it asked for.
fn redirect(to: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static(to));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(path: &str, accept: &str) -> Parts {
        Request::get(path).header(ACCEPT, accept).body(()).unwrap().into_parts().0
    }

    fn pages(is_enabled: bool) -> Pages {
        Pages::new(&Ui { ui_enabled: is_enabled, ui_hosts: Default::default() })
    }

    #[tokio::test]
    async fn the_folder_is_the_document_and_the_name_without_a_slash_leads_to_it() {
        let status = |path: &str| pages(true).file(PageRoute::Ui, &parts(path, "*/*")).map(|found| found.status());
        assert_eq!(status("/ui/"), Ok(StatusCode::OK));
        assert_eq!(status("/ui/index.html"), Ok(StatusCode::OK));
        assert_eq!(status("/ui"), Ok(StatusCode::TEMPORARY_REDIRECT));
        for path in ["/ui/none.js", "/ui/../Cargo.toml", "/ui//etc/passwd", "/ui/..%2fCargo.toml", "/ui/vendor"] {
            assert_eq!(status(path), Err(Refusal::RouteNotFound), "{path}");
        }
    }

    #[tokio::test]
    async fn viewers_of_the_description_may_set_styles_and_no_scripts() {
        for (route, path) in [(PageRoute::Docs, "/docs"), (PageRoute::Redoc, "/redoc")] {
            let page = pages(true).file(route, &parts(path, "*/*")).unwrap();
            let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
            assert!(policy.starts_with("default-src 'self'; style-src 'self' 'unsafe-inline';"), "{policy}");
            assert!(!policy.contains("script-src"), "{policy}");
            let led = pages(true).file(route, &parts(&format!("{path}/"), "*/*")).unwrap();
            assert_eq!(led.status(), StatusCode::TEMPORARY_REDIRECT);
            assert_eq!(led.headers()[LOCATION], format!("..{path}"));
            assert_eq!(pages(false).file(route, &parts(path, "*/*")).err(), Some(Refusal::RouteNotFound));
        }
        for route in [PageRoute::Docs, PageRoute::Redoc, PageRoute::Ui] {
            assert!(pages(true).has(route) && !pages(false).has(route));
        }
        assert!(pages(false).has(PageRoute::OpenApi));
    }

    #[tokio::test]
    async fn only_a_browser_is_led_from_the_root_and_only_where_there_is_a_page() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (is_enabled, accept, expected) in
            [(true, browser, true), (true, "*/*", false), (true, "application/json", false), (false, browser, false)]
        {
            assert_eq!(pages(is_enabled).leads_from_root(&parts("/", accept), "/"), expected, "{is_enabled} {accept}");
        }
        assert!(!pages(true).leads_from_root(&parts("/health", browser), "/health"));
        let refused = pages(false).file(PageRoute::Ui, &parts("/ui/", browser));
        assert_eq!(refused.err(), Some(Refusal::RouteNotFound));
    }
}
