use http::HeaderValue;
use http_body_util::BodyExt;
use proptest::prelude::*;

use super::super::stream::watcher::StreamWatcher;
use super::*;
use crate::gateway::routes::route::StreamEnd;

const NAME: &str = "gpt \"4\"";

/// Returns the renamed response, and checks that it does not depend on the pieces in which the response arrives.
fn renamed(text: &str, is_stream: bool) -> String {
    let bytes = text.as_bytes();
    let whole = rename_pieces(&[bytes], NAME, is_stream);
    for size in 1..=bytes.len().min(80) {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        assert_eq!(rename_pieces(&pieces, NAME, is_stream), whole, "pieces of {size}: {text}");
    }
    for cut in 0..bytes.len() {
        assert_eq!(rename_pieces(&[&bytes[..cut], b"", &bytes[cut..]], NAME, is_stream), whole, "cut at {cut}: {text}");
    }
    String::from_utf8(whole).unwrap()
}

#[test]
fn the_backends_model_name_is_replaced_only_where_it_is_the_models_name() {
    let long = format!("\"/models/{}.gguf\"", "x".repeat(300));
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
        r#"[{"model":#}]"#,
        r#""model""#,
        r#"{"model"}#"#,
        "",
    ] {
        for theirs in [r#""org/m\"é""#, r#""\u006f\/m\"""#, r#""""#, r#""gpt""#, r#""gpt \"4\"""#, r#""\\""#, &long] {
            let given = text.replace(['@', '#'], theirs);
            let expected = text.replace('@', r#""gpt \"4\"""#).replace('#', theirs);
            assert_eq!(renamed(&given, false), expected);
        }
    }
}

#[test]
fn an_unfinished_model_name_is_not_sent() {
    let renamed_start = r#"{"model":"gpt \"4\"""#;
    assert_eq!(renamed(r#"{"model":"/srv/models/m.gg"#, false), renamed_start);
    let chat = "data: {\"choices\":[],\"model\":@}\n\n";
    for (broken, left) in
        [("data: {\"model\":\"org\n\n", ""), ("data: {\"model\":\"org\ndata: /m\\\"é\"}}\n\n", "data: /m\\\"é\"}}\n")]
    {
        let expected = format!("data: {renamed_start}\n{left}\n{}", chat.replace('@', r#""gpt \"4\"""#));
        assert_eq!(renamed(&format!("{broken}{}", chat.replace('@', "\"m\"")), true), expected);
    }
}

#[test]
fn the_model_name_is_replaced_in_every_event_of_a_stream() {
    let chat = "data: {\"choices\":[{\"delta\":{\"content\":#}}],\"model\":@}\n\n";
    for text in [
        &chat.repeat(3),
        &format!(": comment\n\n{chat}data: [DONE]\n\n"),
        &format!("data: [DONE]\n\n{chat}"),
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":@,\"content\":[]}}\n\n",
        "event: response.created\ndata:{\"response\":{\"model\":@}}\n\nevent: x\ndata:{\"response\":{\"model\":@}}\n\n",
        "data: {\ndata: \"model\":\ndata: @}\n\n",
        "id: {\"model\":#}\ndat: {\"model\":#}\n\ndata: {\"model\":@",
        "{\"model\":#}",
        "data",
    ] {
        for theirs in [r#""org/m\"é""#, r#""gpt \"4\"""#] {
            let given = text.replace(['@', '#'], theirs);
            let expected = text.replace('@', r#""gpt \"4\"""#).replace('#', theirs);
            assert_eq!(renamed(&given, true), expected);
            assert_eq!(renamed(&given.replace('\n', "\r\n"), true), expected.replace('\n', "\r\n"));
        }
    }
}

#[test]
fn no_piece_waits_and_unchanged_bytes_are_not_copied() {
    let (mut renamer, mut framer, mut ready) = (ModelRenamer::new("m", true), SseFramer::new(), VecDeque::new());
    let mut take = |piece: &Bytes| {
        renamer.take_any(piece, &mut framer, &mut ready);
        ready.drain(..).collect::<Vec<Bytes>>()
    };
    for piece in ["data: {\"choices\":[{\"delta\":{\"content\":\"half a wo", "rd\"}}],\"model\":\"m\"}\n\n"] {
        let piece = Bytes::from_static(piece.as_bytes());
        let out = take(&piece);
        assert_eq!(
            (out.len(), out[0].as_ptr(), out[0].len()),
            (1, piece.as_ptr(), piece.len()),
            "the piece is not split"
        );
    }
    let piece = Bytes::from_static(b"data: {\"model\":\"/models/");
    let out = take(&piece);
    assert_eq!((out[0].as_ptr(), &*out[0], &*out[1]), (piece.as_ptr(), &b"data: {\"model\":"[..], &b"\"m\""[..]));
    for _ in 0..1000 {
        assert_eq!(take(&Bytes::from_static(b"a value without end ")), [] as [Bytes; 0]);
    }
    assert_eq!(take(&Bytes::from_static(b".gguf\",\"id\":1}")), [",\"id\":1}"]);
}

#[test]
fn only_a_readable_response_is_prepared() {
    let prepared = |content_type: &'static str, coding: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        headers.insert("content-length", HeaderValue::from_static("10"));
        headers.extend(coding.map(|coding| (CONTENT_ENCODING, HeaderValue::from_static(coding))));
        let renamer = ModelRenamer::prepare(&mut headers, "ours");
        assert_eq!(
            headers.contains_key(CONTENT_LENGTH),
            renamer.is_none(),
            "a wrong length would truncate the response"
        );
        renamer.map(|renamer| renamer.is_stream)
    };
    assert_eq!(prepared("application/json; charset=utf-8", None), Some(false));
    assert_eq!(prepared("text/event-stream", None), Some(true));
    assert_eq!(prepared("application/json", Some("gzip")), None);
    assert_eq!(prepared("text/html", None), None);
}

/// A body that returns these frames.
struct ScriptedBody(VecDeque<Result<Frame<Bytes>, &'static str>>);

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready(self.0.pop_front())
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let pieces = self.0.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
        SizeHint::with_exact(pieces.map(|piece| piece.len() as u64).sum())
    }
}

fn scripted(pieces: &[&'static str], last: Option<Result<Frame<Bytes>, &'static str>>) -> ScriptedBody {
    let pieces = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
    ScriptedBody(pieces.chain(last).collect())
}

/// Reads a body to its end, piece by piece.
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
async fn a_body_returns_all_its_pieces_before_any_kind_of_end() {
    let trailers = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("x", HeaderValue::from_static("y"));
        Frame::trailers(trailers)
    };
    let trailers_text = vec!["{\"x\": \"y\"}".to_owned()];
    for (last, rest) in [
        (None, vec![]),
        (Some(Err("broken")), vec!["broken".to_owned()]),
        (Some(Ok(trailers())), trailers_text.clone()),
    ] {
        let pieces = ["{\"model\":\"m\",", "", "\"response\":{\"model\":\"", "m\"},\"model\":\"m"];
        let body = RenamedBody::new(scripted(&pieces, last), Some(ModelRenamer::new("long name", false)));
        assert_eq!(body.size_hint().exact(), None);
        let expected = "{\"model\":\"long name\",\"response\":{\"model\":\"long name\"},\"model\":\"long name\"";
        assert_eq!(read(body).await, (expected.to_owned(), rest));
    }
    let plain = RenamedBody::new(scripted(&["{\"model\":\"m\"}"], Some(Ok(trailers()))), None);
    assert_eq!(plain.size_hint().exact(), Some(13));
    assert_eq!(read(plain).await, ("{\"model\":\"m\"}".to_owned(), trailers_text));
}

#[tokio::test]
async fn a_body_is_at_its_end_when_all_its_pieces_were_returned() {
    let mut body = RenamedBody::new(scripted(&["{\"model\":\"m\"", "}"], None), Some(ModelRenamer::new("a", false)));
    assert!(!body.is_end_stream());
    body.body.0.pop_back();
    for (piece, is_last) in [("{\"model\":", false), ("\"a\"", true)] {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
        assert_eq!(body.is_end_stream(), is_last, "{piece}");
    }
    assert!(body.frame().await.is_none() && body.is_end_stream());
}

/// A body of which the rest arrives later.
struct LateBody {
    pieces: VecDeque<Bytes>,
    /// Pieces that have not arrived. Reading the body once more makes them arrive.
    late: VecDeque<Bytes>,
}

impl Body for LateBody {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        match self.pieces.pop_front() {
            None if !self.late.is_empty() => {
                self.pieces = std::mem::take(&mut self.late);
                Poll::Pending
            }
            piece => Poll::Ready(piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.late.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.pieces.iter().chain(&self.late).map(|piece| piece.len() as u64).sum())
    }
}

/// Regression: a short answer was sent in chunks once its model was renamed, and in three of them.
#[tokio::test]
async fn an_answer_that_has_arrived_as_a_whole_is_one_piece_with_its_length() {
    let mut body = RenamedBody::new(
        scripted(&["{\"model\":", "\"m\",\"id\":1}"], None),
        Some(ModelRenamer::new("long name", false)),
    );
    body.read_what_is_there();
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(28), false));
    let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((&*piece, body.is_end_stream()), (&b"{\"model\":\"long name\",\"id\":1}"[..], true));
    let mut broken =
        RenamedBody::new(scripted(&["{\"model\":\"m"], Some(Err("broken"))), Some(ModelRenamer::new("a", false)));
    broken.read_what_is_there();
    assert!(!broken.is_whole());
    assert_eq!(broken.size_hint().exact(), None, "the rest of it will never come");
    assert_eq!(read(broken).await, ("{\"model\":\"a\"".to_owned(), vec!["broken".to_owned()]));
}

#[test]
fn a_body_that_has_arrived_is_taken_as_a_whole() {
    let whole = |pieces: &[&'static str], renamer: Option<ModelRenamer>| {
        let mut body = RenamedBody::new(scripted(pieces, None), renamer);
        body.read_what_is_there();
        let length = body.size_hint().exact();
        let whole = body.is_whole().then(|| body.take_whole()).flatten();
        assert!(whole.as_ref().is_none_or(|whole| length == Some(whole.len() as u64) && body.is_end_stream()));
        whole
    };
    assert_eq!(whole(&["{}"], None).unwrap(), "{}");
    assert_eq!(whole(&["{", "}"], None), None, "the second piece has not been read");
    let renamer = || Some(ModelRenamer::new("other", false));
    assert_eq!(whole(&["{\"model\":", "\"m\"}"], renamer()).unwrap(), "{\"model\":\"other\"}");
    assert_eq!(whole(&[], renamer()), None);
}

/// Texts that are responses, or nearly.
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
    fn the_renamed_response_does_not_depend_on_its_pieces(text in answer(), is_stream: bool, cuts in prop::collection::vec(0..100_usize, 0..8)) {
        let text = if is_stream { format!("data: {text}") } else { text };
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &text.as_bytes()[ends[0]..ends[1]]).collect();
        let whole = rename_pieces(&[text.as_bytes()], "m", is_stream);
        prop_assert_eq!(&rename_pieces(&pieces, "m", is_stream), &whole);
        prop_assert_eq!(&rename_pieces(&[&whole], "m", is_stream), &whole, "a name that is right already stays");
    }

    #[test]
    fn what_is_there_is_renamed_as_what_comes_later(text in answer(), there in 0..4_usize, cuts in prop::collection::vec(0..100_usize, 0..4)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let mut pieces: VecDeque<Bytes> = cuts.windows(2).map(|ends| Bytes::copy_from_slice(&text.as_bytes()[ends[0]..ends[1]])).collect();
        let late = pieces.split_off(there.min(pieces.len()));
        let is_whole = late.is_empty();
        let mut body = RenamedBody::new(LateBody { pieces, late }, Some(ModelRenamer::new("other", false)));
        body.read_what_is_there();
        let length = body.size_hint().exact();
        let expected = rename_pieces(&[text.as_bytes()], "other", false);
        let mut out = Vec::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        loop {
            match Pin::new(&mut body).poll_frame(&mut context) {
                Poll::Ready(Some(frame)) => out.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                Poll::Ready(None) => break,
                Poll::Pending => {}
            }
        }
        prop_assert_eq!(&out, &expected);
        prop_assert!(length.is_none_or(|length| length == out.len() as u64), "{length:?}");
        prop_assert!(!is_whole || expected.is_empty() || length.is_some());
    }

    #[test]
    fn an_answer_is_renamed_as_its_value_would_be(content in ".{0,12}", theirs in ".{0,12}", ours in ".{1,12}") {
        let response_with = |name: &str| serde_json::json!({
            "content": content, "model": name, "response": {"model": name, "text": [{"model": theirs}]},
            "message": {"model": name, "content": {"model": theirs}}, "choices": [{"message": {"model": theirs}}],
        }).to_string();
        prop_assert_eq!(rename_pieces(&[response_with(&theirs).as_bytes()], &ours, false), response_with(&ours).into_bytes());
        let event = |json: &str| format!("event: x\ndata: {json}\n\n").into_bytes();
        prop_assert_eq!(rename_pieces(&[&event(&response_with(&theirs))], &ours, true), event(&response_with(&ours)));
    }

    #[test]
    fn whole_events_of_a_renamed_stream_are_sent(text in answer(), cuts in prop::collection::vec(0..100_usize, 0..8)) {
        let text = format!("data: {}", text.replace('\r', ""));
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let (mut watch, mut renamer, mut ready) = (StreamWatcher::new(StreamEnd::Done), ModelRenamer::new("m", true), VecDeque::new());
        for ends in cuts.windows(2) {
            let piece = Bytes::copy_from_slice(&text.as_bytes()[ends[0]..ends[1]]);
            watch.take(piece, &mut ready, |step, out| renamer.take_step(step, out));
        }
        let released: String = ready.drain(..).map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect();
        watch.flush(&mut ready);
        let held: String = ready.drain(..).map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect();
        prop_assert!(released.is_empty() || released.ends_with("\n\n"), "{released:?}");
        prop_assert!(!held.contains("\n\n") && !held.starts_with('\n'), "{held:?}");
        prop_assert_eq!((released + &held).into_bytes(), rename_pieces(&[text.as_bytes()], "m", true));
    }
}
