//! A bucket of S3 in memory, as far as `object_store` speaks with it: what the faults on the wire stand before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{Method, Response, StatusCode};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use object_store::client::{HttpResponse, HttpResponseBody};
use url::Url;

use crate::clock::{Clock, Timestamp};

pub(super) const NAME: &str = "lake";
/// Keys on a page of a listing: few, so that listings need several.
const PAGE: usize = 7;

/// A request that has come through, whole.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    /// Of a put: nothing may be there yet.
    pub(super) create_only: bool,
    /// The bytes asked for, the last included.
    pub(super) range: Option<(usize, usize)>,
    pub(super) body: Bytes,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    tag: String,
    at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Bucket {
    objects: Mutex<BTreeMap<String, Object>>,
    /// Keys that were put with no condition, over whatever was there.
    overwritten: Mutex<BTreeSet<String>>,
    /// Whether it puts over what is there, whatever the condition of a put: some stores do.
    pub(super) ignores_conditions: AtomicBool,
    clock: Clock,
}

impl Request {
    /// The key it is about; empty when it is about the bucket.
    pub(super) fn key(&self) -> String {
        let path = object_store::path::Path::from_url_path(self.url.path()).unwrap().to_string();
        let key = path.strip_prefix(NAME).unwrap_or_else(|| panic!("{path} is of another bucket"));
        key.trim_start_matches('/').to_owned()
    }

    fn query(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    pub(super) fn is_listing(&self) -> bool {
        self.method == Method::GET && self.query("list-type").is_some()
    }

    /// The keys that a request to delete names.
    pub(super) fn doomed(&self) -> Vec<String> {
        let text = String::from_utf8(self.body.to_vec()).unwrap();
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        keys.map(|(key, _)| key.to_owned()).collect()
    }
}

/// An answer with this body.
pub(super) fn answer(status: u16, body: impl Into<Bytes>) -> HttpResponse {
    let body: Bytes = body.into();
    let response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    response.header("content-length", body.len()).body(HttpResponseBody::from(body)).unwrap()
}

/// A refusal in the words of S3.
pub(super) fn refusal(status: u16, code: &str) -> HttpResponse {
    answer(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"))
}

impl Bucket {
    pub(super) fn new(clock: &Clock) -> Self {
        Self {
            objects: Mutex::default(),
            overwritten: Mutex::default(),
            ignores_conditions: AtomicBool::default(),
            clock: clock.clone(),
        }
    }

    /// Does what a request asks for, at one moment, and answers.
    pub(super) fn serve(&self, request: &Request) -> HttpResponse {
        match request.method {
            Method::PUT => self.put(request),
            Method::GET if request.is_listing() => self.list(request),
            Method::GET | Method::HEAD => self.get(request),
            Method::POST if request.query("delete").is_some() => self.delete(request),
            _ => panic!("nobody does this: {} {}", request.method, request.url),
        }
    }

    /// The keys and contents there are.
    pub(super) fn contents(&self) -> BTreeMap<String, Bytes> {
        let objects = self.objects.lock().unwrap();
        objects.iter().map(|(key, object)| (key.clone(), object.bytes.clone())).collect()
    }

    /// Keys that may have been overwritten.
    pub(super) fn overwritten(&self) -> BTreeSet<String> {
        self.overwritten.lock().unwrap().clone()
    }

    fn put(&self, request: &Request) -> HttpResponse {
        let (key, mut objects) = (request.key(), self.objects.lock().unwrap());
        if !request.create_only {
            self.overwritten.lock().unwrap().insert(key.clone());
        } else if objects.contains_key(&key) && !self.ignores_conditions.load(Ordering::Relaxed) {
            return refusal(412, "PreconditionFailed");
        }
        let tag = format!("\"{:x}-{}\"", request.body.len(), objects.len());
        objects.insert(key, Object { bytes: request.body.clone(), tag: tag.clone(), at: self.clock.now() });
        let mut done = answer(200, "");
        done.headers_mut().insert("etag", tag.parse().unwrap());
        done
    }

    fn get(&self, request: &Request) -> HttpResponse {
        let Some(object) = self.objects.lock().unwrap().get(&request.key()).cloned() else {
            return refusal(404, "NoSuchKey");
        };
        let size = object.bytes.len();
        let mut found = match request.range {
            Some((first, _)) if first >= size => return refusal(416, "InvalidRange"),
            Some((first, last)) => {
                let last = last.min(size - 1);
                let mut part = answer(206, object.bytes.slice(first..=last));
                part.headers_mut().insert("content-range", format!("bytes {first}-{last}/{size}").parse().unwrap());
                part
            }
            None if request.method == Method::HEAD => {
                let mut head = answer(200, "");
                head.headers_mut().insert("content-length", size.into());
                head
            }
            None => answer(200, object.bytes),
        };
        let at = DateTime::from_timestamp_micros(object.at.as_micros()).unwrap();
        let headers = found.headers_mut();
        headers.insert("etag", object.tag.parse().unwrap());
        headers.insert("last-modified", at.format("%a, %d %b %Y %H:%M:%S GMT").to_string().parse().unwrap());
        found
    }

    fn delete(&self, request: &Request) -> HttpResponse {
        let (keys, mut objects) = (request.doomed(), self.objects.lock().unwrap());
        let mut deleted = String::new();
        for key in &keys {
            // What is not there is deleted as well.
            objects.remove(key);
            deleted += &format!("<Deleted><Key>{key}</Key></Deleted>");
        }
        answer(200, format!("<?xml version=\"1.0\"?><DeleteResult>{deleted}</DeleteResult>"))
    }

    fn list(&self, request: &Request) -> HttpResponse {
        let prefix = request.query("prefix").unwrap_or_default();
        let is_folded = request.query("delimiter").is_some();
        let after = request.query("continuation-token").or_else(|| request.query("start-after")).unwrap_or_default();
        let objects = self.objects.lock().unwrap();
        let mut entries: BTreeMap<String, Option<&Object>> = BTreeMap::new();
        for (key, object) in objects.iter() {
            let Some(rest) = key.strip_prefix(&prefix) else { continue };
            match rest.split_once('/') {
                Some((folder, _)) if is_folded => entries.insert(format!("{prefix}{folder}/"), None),
                _ => entries.insert(key.clone(), Some(object)),
            };
        }
        entries.retain(|entry, _| *entry > after);
        let next = entries.keys().nth(PAGE - 1).filter(|_| entries.len() > PAGE).cloned();
        let mut body = format!("<?xml version=\"1.0\"?><ListBucketResult><Name>{NAME}</Name>");
        for (entry, object) in entries.into_iter().take(PAGE) {
            body += &entry_xml(&entry, object);
        }
        if let Some(next) = next {
            body += &format!("<NextContinuationToken>{next}</NextContinuationToken>");
        }
        answer(200, body + "</ListBucketResult>")
    }
}

/// An entry of a listing: an object, or a folder.
fn entry_xml(entry: &str, object: Option<&Object>) -> String {
    let Some(Object { bytes, tag, at }) = object else {
        return format!("<CommonPrefixes><Prefix>{entry}</Prefix></CommonPrefixes>");
    };
    let at = DateTime::from_timestamp_micros(at.as_micros()).unwrap().to_rfc3339_opts(SecondsFormat::Millis, true);
    let (size, tag) = (bytes.len(), tag.replace('"', "&quot;"));
    format!(
        "<Contents><Key>{entry}</Key><LastModified>{at}</LastModified><ETag>{tag}</ETag><Size>{size}</Size></Contents>"
    )
}
