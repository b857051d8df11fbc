//! Names: topics and filters as clients and configurations have them, and the digests after which the module library
//! and the artifact store name their files.

use super::take_text;
use crate::digest::Digest;
use crate::topic;

/// Takes three texts, each a byte with its length and its bytes: a topic and two filters. The rest is a digest.
///
/// # Panics
/// If reading panics, two functions contradict each other, or a digest is not written as it was read.
pub fn names(data: &[u8]) {
    let mut input = data;
    let [name, wide, narrow] = [(); 3].map(|()| take_text(&mut input));
    if let Some(request) = topic::parse_request(&name) {
        assert_eq!(topic::request(request.kind, request.reply_id), name);
        let result = topic::result(request.reply_id);
        assert!(topic::is_result_or_below(&result, request.reply_id));
        if topic::is_valid_name(&result) {
            assert!(topic::is_response_permitted(&result, request.reply_id, &[] as &[&str]));
        }
        // No answer is a request.
        assert!(!topic::is_response_permitted(&name, request.reply_id, &["#"]));
    }
    if [&wide, &narrow].into_iter().all(|filter| topic::is_valid_filter(filter))
        && topic::is_valid_name(&name)
    {
        let both = topic::covers(&wide, &narrow) && topic::matches(&narrow, &name);
        assert!(!both || topic::matches(&wide, &name), "{wide} covers {narrow}, which matches {name}");
    }
    let text = String::from_utf8_lossy(input);
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text.to_lowercase());
    }
}
