//! Tests of the client against real listeners.

use http::header;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{self, JoinSet};
use tokio::time::Instant as KernelInstant;

use super::*;
use crate::dial::testing::{DEADLINE, TestAuthority, TestServer};

const OPTIONS: ClientOptions =
    ClientOptions { connect_timeout: DEADLINE, keep_idle: None, follow_redirects: false, use_proxy: false };

fn client(trust: &Trust) -> HttpClient {
    HttpClient::new(trust, &OPTIONS).unwrap()
}

fn get(url: String) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

/// Sends a GET request. Returns the status, or the sentence that explains why there is no response.
async fn get_status(trust: &Trust, url: String) -> Result<StatusCode, String> {
    let sent = client(trust).send(get(url), DEADLINE).await;
    sent.map(|response| response.status()).map_err(|error| error.explain("HOST"))
}

/// Accepts connections and answers each request with the next of these texts. Returns the URL, and a task that ends
/// after the last text with the number of connections.
async fn server(responses: Vec<String>) -> (String, JoinSet<usize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut connections, mut responses) = (0, responses.into_iter().peekable());
        while responses.peek().is_some() {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections += 1;
            loop {
                let mut request = [0; 1024];
                match stream.read(&mut request).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
                let Some(response) = responses.next() else { break };
                stream.write_all(response.as_bytes()).await.unwrap();
                if responses.peek().is_none() {
                    break;
                }
            }
        }
        connections
    });
    (url, serving)
}

fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn certificates_are_checked_and_a_bad_one_is_explained() {
    let (ours, theirs) = (TestAuthority::new("ours"), TestAuthority::new("theirs"));
    for (config, expected) in [
        (ours.certify("127.0.0.1"), Ok(())),
        (theirs.certify("127.0.0.1"), Err("the certificate of HOST is not trusted")),
        (ours.certify("elsewhere.example"), Err("the certificate of HOST is one for another name")),
        (ours.certify_expired("127.0.0.1"), Err("the certificate of HOST has expired")),
    ] {
        let server = TestServer::open_tls(config).await;
        let url = format!("https://{}/", server.address);
        match (get_status(&ours.trust(), url.clone()).await, expected) {
            (result, Ok(())) => assert_eq!(result, Ok(StatusCode::OK)),
            (result, Err(start)) => {
                let sentence = result.unwrap_err();
                assert!(sentence.starts_with(start), "{sentence}");
                assert!(server.requests().is_empty(), "no request is sent");
            }
        }
        assert!(get_status(&Trust::None, url).await.is_err());
    }
}

#[tokio::test]
async fn failed_connections_are_explained() {
    let plain = TestServer::open(StatusCode::OK, "").await;
    let authority = TestAuthority::new("ours");
    let sentence = get_status(&authority.trust(), format!("https://{}/", plain.address)).await.unwrap_err();
    assert_eq!(sentence, "HOST does not speak TLS; is it http?");

    let secure = TestServer::open_tls(authority.certify("127.0.0.1")).await;
    let sentence = get_status(&Trust::None, format!("http://{}/", secure.address)).await.unwrap_err();
    assert_eq!(sentence, "HOST does not answer in HTTP; is it https?");

    let bound = TcpSocket::new_v4().unwrap();
    bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let sentence = get_status(&Trust::None, format!("http://{}/", bound.local_addr().unwrap())).await.unwrap_err();
    assert_eq!(sentence, "HOST refuses connections");

    let sentence = get_status(&Trust::None, "http://unknown.invalid/".to_owned()).await.unwrap_err();
    assert_eq!(sentence, "the name of HOST cannot be resolved");
}

#[tokio::test(start_paused = true)]
async fn the_connect_timeout_bounds_the_tls_handshake_too() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let options = ClientOptions { connect_timeout: DEADLINE / 10, ..OPTIONS };
    let client = HttpClient::new(&TestAuthority::new("ours").trust(), &options).unwrap();
    let (url, start) = (format!("https://{}/", silent.local_addr().unwrap()), KernelInstant::now());
    let error = client.send(get(url), DEADLINE).await.unwrap_err();
    assert_eq!(error.explain("HOST"), "HOST did not take a connection in time");
    assert_eq!(start.elapsed().as_secs(), options.connect_timeout.as_secs());
}

#[tokio::test]
async fn errors_show_nothing_of_the_url() {
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = bound.local_addr().unwrap();
    for url in [format!("http://hush:hush@{address}/hush?hush=hush"), "http://[::1]:99999/hush".to_owned()] {
        let Ok(request) = Request::get(url).body(Bytes::new()) else { continue };
        let error = client(&Trust::None).send(request, DEADLINE).await.unwrap_err();
        let shown = format!("{error} {error:?} {}", error.explain("HOST"));
        assert!(!shown.contains("hush"), "{shown}");
    }
    let (url, serving) = server(vec!["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nxy".to_owned()]).await;
    let response = client(&Trust::None).send(get(format!("{url}hush")), DEADLINE).await.unwrap();
    let error = response.read_all(9).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    serving.join_all().await;
}

#[tokio::test]
async fn requests_carry_a_user_agent_and_the_headers_that_they_are_given() {
    let server = TestServer::open(StatusCode::OK, "").await;
    let mut request = get(format!("http://{}/a?b=c", server.address));
    request.headers_mut().insert(header::AUTHORIZATION, header::HeaderValue::from_static("Bearer key"));
    client(&Trust::None).send(request, DEADLINE).await.unwrap();
    let head = server.requests().remove(0);
    assert_eq!((head.version, head.uri.to_string().as_str()), (http::Version::HTTP_11, "/a?b=c"));
    assert_eq!(head.headers[header::AUTHORIZATION], "Bearer key");
    assert_eq!(head.headers[header::HOST], server.address.to_string());
    assert_eq!(head.headers[header::USER_AGENT], USER_AGENT);
    assert_eq!(head.headers.len(), 4, "{:?}", head.headers); // and Accept
}

#[tokio::test]
async fn redirects_are_followed_only_on_demand() {
    let target = TestServer::open(StatusCode::NO_CONTENT, "").await;
    for follow_redirects in [false, true] {
        let redirect =
            format!("HTTP/1.1 302 Found\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", target.address);
        let (url, serving) = server(vec![redirect]).await;
        let client = HttpClient::new(&Trust::None, &ClientOptions { follow_redirects, ..OPTIONS }).unwrap();
        let status = client.send(get(url), DEADLINE).await.unwrap().status();
        assert_eq!(status, if follow_redirects { StatusCode::NO_CONTENT } else { StatusCode::FOUND });
        assert_eq!(target.requests().len(), usize::from(follow_redirects));
        serving.join_all().await;
    }
}

#[tokio::test]
async fn connections_are_kept_only_on_demand() {
    for (keep_idle, connections) in [(None, 2), (Some(DEADLINE), 1)] {
        let (url, serving) = server(vec![response("200 OK", "one"), response("200 OK", "two")]).await;
        let client = HttpClient::new(&Trust::None, &ClientOptions { keep_idle, ..OPTIONS }).unwrap();
        for expected in ["one", "two"] {
            let response = client.send(get(url.clone()), DEADLINE).await.unwrap();
            assert_eq!(response.read_all(3).await.unwrap(), expected);
            // The connection goes back to the pool by a task of its own.
            task::yield_now().await;
        }
        drop(client);
        assert_eq!(serving.join_all().await, [connections]);
    }
}

#[tokio::test]
async fn reading_a_body_stops_at_its_limit() {
    let (url, serving) = server(vec![response("200 OK", "12345"); 3]).await;
    let client = client(&Trust::None);
    let send = || client.send(get(url.clone()), DEADLINE);
    assert_eq!(send().await.unwrap().read_all(5).await.unwrap(), "12345");
    assert!(matches!(send().await.unwrap().read_all(4).await, Err(HttpError::TooLarge(4))));
    let mut start = Vec::new();
    send().await.unwrap().read_start(4, &mut start).await.unwrap();
    assert_eq!(start, b"1234");
    serving.join_all().await;
}

#[tokio::test]
async fn bytes_that_arrived_before_a_connection_broke_are_kept() {
    let (url, serving) = server(vec!["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nxy".to_owned()]).await;
    let response = client(&Trust::None).send(get(url), DEADLINE).await.unwrap();
    let mut start = Vec::new();
    assert!(matches!(response.read_start(9, &mut start).await, Err(HttpError::Failed(_))));
    assert_eq!(start, b"xy");
    serving.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn the_timeout_bounds_the_head_and_the_body_together() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let start = KernelInstant::now();
    let error = client(&Trust::None).send(get(url.clone()), DEADLINE / 10).await.unwrap_err();
    assert_eq!(error.explain("HOST"), "HOST does not answer in time");
    assert_eq!(start.elapsed().as_secs(), (DEADLINE / 10).as_secs());

    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = Vec::new();
        // The first connection is the one above.
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nx").await;
            connections.push(stream);
        }
        std::future::pending::<()>().await;
    });
    for with_timeout in [None, Some(DEADLINE / 5)] {
        let start = KernelInstant::now();
        let response = client(&Trust::None).send(get(url.clone()), DEADLINE / 10).await.unwrap();
        let response = match with_timeout {
            Some(timeout) => response.with_timeout(timeout),
            None => response,
        };
        assert!(matches!(response.read_all(2).await, Err(HttpError::TimedOut)));
        assert_eq!(start.elapsed().as_secs(), with_timeout.unwrap_or(DEADLINE / 10).as_secs());
    }
}
