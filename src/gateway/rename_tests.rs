use super::*;
use http::HeaderValue;
use http_body_util::BodyExt;
use proptest::prelude::*;

const THEIRS: &str = "org/m\"é";
const OURS: &str = "gpt \"4\"";

/// What comes of an answer, which must be the same in whatever pieces it comes.
fn of(text: &str, is_stream: bool) -> String {
    let bytes = text.as_bytes();
    let whole = renamed(&[bytes], THEIRS, OURS, is_stream);
    for size in 1..=bytes.len().min(80) {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        assert_eq!(renamed(&pieces, THEIRS, OURS, is_stream), whole, "pieces of {size}: {text}");
    }
    for cut in 0..bytes.len() {
        assert_eq!(
            renamed(&[&bytes[..cut], b"", &bytes[cut..]], THEIRS, OURS, is_stream),
            whole,
            "cut at {cut}: {text}"
        );
    }
    String::from_utf8(whole).unwrap()
}

#[test]
fn the_name_is_replaced_in_its_own_places_alone() {
    let long = "x".repeat(300);
    for text in [
        r#"{"model":@}"#,
        r#" { "id" : "x" , "model" : @ , "choices" : [ { "message" : { "content" : # } } ] } "#,
        r#"{"choices":[{"message":{"content":"\"model\":","model":#}}],"object":{"model":#},"model":@}"#,
        r#"{"response":{"id":1,"model":@,"output":[{"model":#}],"response":{"model":#}},"model":@}"#,
        r#"{"message":{"content":[],"model":@,"message":{"model":#}}}"#,
        r#"{"m\u006fdel":@,"Model":#,"model2":#}"#,
        r#"{"model":@,"model":@}"#,
        r#"{"model":null,"a":#}"#,
        r#"{"model":[#]}"#,
        r#"{"model":{"model":#}}"#,
        r#"{"model":"other","a":#}"#,
        r#"{"model":"org/m","a":#}"#,
        &format!("{{\"model\":\"{long}\",\"a\":#}}"),
        &format!("{{\"model\":\"org/m\\\"é{long}\",\"a\":#}}"),
        r#"[{"model":#}]"#,
        r#""model""#,
        r#"{"model":"org/m"#,
        r#"{"model"}#"#,
        "",
    ] {
        for theirs in [r#""org/m\"é""#, r#""org\/m\"\u00e9""#, r#""\u006f\u0072\u0067\u002f\u006d\u0022\u00e9""#] {
            let given = text.replace(['@', '#'], theirs);
            let expected = text.replace('@', r#""gpt \"4\"""#).replace('#', theirs);
            assert_eq!(of(&given, false), expected);
        }
    }
}

#[test]
fn it_is_replaced_in_every_event_of_a_stream() {
    let chat = "data: {\"choices\":[{\"delta\":{\"content\":#}}],\"model\":@}\n\n";
    for text in [
        &chat.repeat(3),
        &format!(": comment\n\n{chat}data: [DONE]\n\n"),
        &format!("data: [DONE]\n\n{chat}"),
        &format!("data: {{\"model\":\"org\n\n{chat}"),
        "data: {\"model\":\"org\n\ndata: {\"model\":@}\n\n",
        &format!("data: {{\"model\":\"org\ndata: /m\\\"é\"}}\n\n{chat}"),
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":@,\"content\":[]}}\n\n",
        "event: response.created\ndata:{\"response\":{\"model\":@}}\n\nevent: x\ndata:{\"response\":{\"model\":@}}\n\n",
        "data: {\ndata: \"model\":\ndata: @}\n\n",
        "id: {\"model\":#}\ndat: {\"model\":#}\n\ndata: {\"model\":@",
        "{\"model\":#}",
        "data",
    ] {
        let given = text.replace(['@', '#'], r#""org/m\"é""#);
        let expected = text.replace('@', r#""gpt \"4\"""#).replace('#', r#""org/m\"é""#);
        assert_eq!(of(&given, true), expected);
        assert_eq!(of(&given.replace('\n', "\r\n"), true), expected.replace('\n', "\r\n"));
    }
}

#[test]
fn nothing_waits_but_a_name_and_it_is_not_copied() {
    let (mut renamer, mut ready) = (Renamer::new("m", "a", true), VecDeque::new());
    let piece = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"half a wo");
    renamer.take(&piece, &mut ready);
    assert_eq!((ready.len(), ready[0].as_ptr(), ready[0].len()), (1, piece.as_ptr(), piece.len()));
    let other = Bytes::from_static(b"rd\"}}],\"model\":\"other\"}\n\n");
    renamer.take(&other, &mut ready);
    assert_eq!((ready.len(), ready[1].as_ptr()), (2, other.as_ptr()), "another name divides no piece");
    renamer.take(&Bytes::from_static(b"data: {\"model\":\"xx"), &mut ready);
    assert_eq!(ready.back().unwrap(), "data: {\"model\":");
    renamer.take(&Bytes::from_static(b"xxxxxxxx"), &mut ready);
    assert_eq!(ready.back().unwrap(), "\"xxxxxxxxxx", "it is too long to be the name");
}

#[test]
fn only_what_can_be_read_is_prepared() {
    let prepared = |content_type: &'static str, coding: Option<&'static str>, theirs: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        headers.insert("content-length", HeaderValue::from_static("10"));
        headers.extend(coding.map(|coding| (CONTENT_ENCODING, HeaderValue::from_static(coding))));
        let renamer = Renamer::prepare(&mut headers, theirs, "ours");
        assert_eq!(headers.contains_key(CONTENT_LENGTH), renamer.is_none(), "a wrong length would cut the answer");
        renamer.map(|renamer| renamer.line.is_some())
    };
    assert_eq!(prepared("application/json; charset=utf-8", None, "theirs"), Some(false));
    assert_eq!(prepared("text/event-stream", None, "theirs"), Some(true));
    assert_eq!(prepared("text/event-stream", None, "ours"), None);
    assert_eq!(prepared("application/json", Some("gzip"), "theirs"), None);
    assert_eq!(prepared("text/html", None, "theirs"), None);
}

/// A body that gives these frames.
struct Scripted(VecDeque<Result<Frame<Bytes>, &'static str>>);

impl Body for Scripted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(self.0.pop_front())
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(99)
    }
}

fn scripted(pieces: &[&'static str], last: Option<Result<Frame<Bytes>, &'static str>>) -> Scripted {
    let pieces = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
    Scripted(pieces.chain(last).collect())
}

/// All that a body gives, piece by piece.
async fn read(mut body: impl Body<Data = Bytes, Error = &'static str> + Unpin) -> (String, Vec<String>) {
    let (mut text, mut rest) = (String::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(piece)) => text.push_str(str::from_utf8(&piece).unwrap()),
            Ok(Err(trailers)) => rest.push(format!("{:?}", trailers.into_trailers().unwrap())),
            Err(error) => rest.push(error.to_owned()),
        }
    }
    (text, rest)
}

#[tokio::test]
async fn a_body_gives_all_that_it_holds_before_its_end_whatever_ends_it() {
    let trailers = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("x", HeaderValue::from_static("y"));
        Frame::trailers(trailers)
    };
    let told = vec!["{\"x\": \"y\"}".to_owned()];
    for (last, rest) in
        [(None, vec![]), (Some(Err("broken")), vec!["broken".to_owned()]), (Some(Ok(trailers())), told.clone())]
    {
        let pieces = ["{\"model\":\"m\",", "", "\"response\":{\"model\":\"", "m\"},\"model\":\"m"];
        let body = Renamed::new(scripted(&pieces, last), Some(Renamer::new("m", "long name", false)));
        assert_eq!(body.size_hint().exact(), None);
        let expected = "{\"model\":\"long name\",\"response\":{\"model\":\"long name\"},\"model\":\"m";
        assert_eq!(read(body).await, (expected.to_owned(), rest));
    }
    let plain = Renamed::new(scripted(&["{\"model\":\"m\"}"], Some(Ok(trailers()))), None);
    assert_eq!(plain.size_hint().exact(), Some(99));
    assert_eq!(read(plain).await, ("{\"model\":\"m\"}".to_owned(), told));
}

#[tokio::test]
async fn a_body_is_not_at_its_end_while_it_holds_something() {
    let mut body = Renamed::new(scripted(&["{\"model\":", "\"m"], None), Some(Renamer::new("m", "a", false)));
    assert!(!body.is_end_stream());
    for (piece, is_last) in [("{\"model\":", false), ("\"m", true)] {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
        assert_eq!(body.is_end_stream(), is_last, "{piece}");
    }
    assert!(body.frame().await.is_none() && body.is_end_stream());
    let mut held = Renamed::new(scripted(&["\"m"], None), Some(Renamer::new("m", "a", false)));
    held.renamer.as_mut().unwrap().take(&Bytes::from_static(b"{\"model\":"), &mut VecDeque::new());
    held.renamer.as_mut().unwrap().take(&Bytes::from_static(b"\"m"), &mut VecDeque::new());
    held.body.0.clear();
    assert!(!held.is_end_stream(), "it holds the beginning of a name");
}

/// Texts that look like answers, or nearly.
fn answer() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        4 => prop::sample::select(vec!["\"model\"", "\"m\"", "\"response\"", ":", ",", "{", "}"]),
        1 => prop::sample::select(vec!["[", "]", " ", "\\", "\"", "\n", "\r\n", "\n\n", "1", "\"mm\"", "\"\\u006d\""]),
        2 => prop::sample::select(vec!["\n\ndata: {\"model\":", "{\"model\":\"m\"", "{\"message\":{", ",\"model\":\"m\""]),
    ];
    prop::collection::vec(token, 0..16).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn pieces_do_not_matter(text in answer(), is_stream: bool, cuts in prop::collection::vec(0..100_usize, 0..8)) {
        let text = if is_stream { format!("data: {text}") } else { text };
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &text.as_bytes()[ends[0]..ends[1]]).collect();
        let whole = renamed(&[text.as_bytes()], "m", "other", is_stream);
        prop_assert_eq!(renamed(&pieces, "m", "other", is_stream), whole);
        prop_assert_eq!(renamed(&pieces, "x", "y", is_stream), text.as_bytes(), "another's name stays");
    }

    #[test]
    fn an_answer_is_renamed_as_its_value_would_be(content in ".{0,12}", with in 0..8_u8) {
        let name = |bit: u8| if with & bit == 0 { "m" } else { "n" };
        let of = |name: &dyn Fn(u8) -> String| serde_json::json!({
            "content": content, "model": name(1), "response": {"model": name(2), "text": [{"model": "m"}]},
            "message": {"model": name(4), "content": {"model": "m"}}, "choices": [{"message": {"model": "m"}}],
        }).to_string();
        let expected = of(&|bit| name(bit).replace('m', "other"));
        let given = of(&|bit| name(bit).to_owned());
        prop_assert_eq!(renamed(&[given.as_bytes()], "m", "other", false), expected.as_bytes());
        let event = |json: &str| format!("event: x\ndata: {json}\n\n").into_bytes();
        prop_assert_eq!(renamed(&[&event(&given)], "m", "other", true), event(&expected));
    }
}
