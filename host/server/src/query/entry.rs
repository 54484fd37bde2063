//! One entry of a map, by key: from the partitions held here, else from the instances that hold them.
//!
//! Invariant: a key is absent only where every partition that it may stand in was live, and said so. A key of a step's state may stand
//! in several: then no value is picked from them.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use millstream_engine::pipeline::{Kept, MapId};
use millstream_engine::state::changelog;
use millstream_engine::state::restore::Phase;

use super::peers::Answer;
use super::routing::{self, ENTRY_WEIGHT};
use super::{Hosted, Refusal, Served, parameters, path};

const PARTITION: &str = "millstream-partition";

/// `GET /v1/pipelines/{pipeline}/maps/{map}/entries/{key}`: the value as stored. The key is the rest of the path, percent-decoded
/// to bytes; it may be empty, hold slashes, or be no text at all. The headers `millstream-partition` and `millstream-offset` say
/// which changelog partition answered, and up to which offset it had been folded; `millstream-instance`, where. With `partition=N` that
/// one alone is asked.
pub async fn get(
    State(hosted): State<Hosted>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Refusal> {
    let [pipeline, _, map, _, key] = path::parts(uri.path());
    let served = path::pipeline(&hosted, pipeline)?;
    let map = path::map(&served, map)?;
    let key = path::decoded(key)?;
    let routed = routing::asked_for(&headers)?;
    let is_routed = routed.is_some();
    let of = served.partitions_of[map.0];
    let only = parameters::of_entry(uri.query().unwrap_or_default(), of)?;
    let candidates = match (routed, only) {
        (Some(routed), _) => routed,
        (None, Some(only)) => vec![only],
        (None, None) => places_of(&served, map, &key),
    };
    let mut said = Said::default();
    let may_stand_in_one = served.pipeline.maps[map.0].kept != Kept::State;
    let elsewhere = said.ask_here(&served, map, &key, candidates);
    let goes_on = said.found.is_empty() || !may_stand_in_one;
    if goes_on && !elsewhere.is_empty() {
        if is_routed || served.pipeline.maps[map.0].replicated {
            return Err(path::not_here(&served, map, elsewhere[0]));
        }
        let answers = served
            .routing
            .ask(uri.path(), elsewhere, ENTRY_WEIGHT)
            .await;
        for (numbers, answer) in answers {
            said.hear(numbers, answer);
        }
    }
    said.sum_up(may_stand_in_one)
}

/// What the partitions said that were asked so far.
#[derive(Debug, Default)]
struct Said {
    /// Partitions that have it, with what they, or those of them that one owner has, answered.
    found: Vec<(Vec<u32>, Response)>,
    /// Of a partition that could not say anything.
    unready: Option<Refusal>,
    /// Those that are sure not to have it.
    absent: Vec<u32>,
    /// The refusal of the last of them.
    refusal: Option<Response>,
}

impl Said {
    /// Asks those of the partitions that are held here; the others are returned.
    fn ask_here(
        &mut self,
        served: &Served,
        map: MapId,
        key: &[u8],
        candidates: Vec<u32>,
    ) -> Vec<u32> {
        let mut elsewhere = Vec::new();
        for number in candidates {
            let Some(partition) = served.directory.answering((map, number)) else {
                elsewhere.push(number);
                continue;
            };
            let partition = partition.read().expect("nobody panics with it held");
            let position = partition.position();
            let headers = [
                (PARTITION, number.to_string()),
                ("millstream-offset", position.to_string()),
            ];
            match (partition.phase(), partition.contents().get(key)) {
                (Phase::Restoring { end }, _) => {
                    self.unready = Some(Refusal::restoring(number, position, end));
                }
                (Phase::Live, Some(value)) => {
                    let kind = [("content-type", "application/octet-stream")];
                    let response = (headers, kind, value.to_vec()).into_response();
                    self.found.push((vec![number], response));
                }
                (Phase::Live, None) => {
                    self.absent.push(number);
                    self.refusal = Some((headers, absent()).into_response());
                }
            }
        }
        elsewhere
    }

    /// Takes in what the owner of these partitions answered.
    fn hear(&mut self, mut numbers: Vec<u32>, answer: Result<Answer, Refusal>) {
        match answer {
            Err(refusal) => self.unready = Some(refusal),
            Ok(answer) if matches!(answer.status, StatusCode::OK | StatusCode::CONFLICT) => {
                let named = answer.header(PARTITION).unwrap_or_default();
                let having = named.split(',').filter_map(|number| number.parse().ok());
                self.found.push((having.collect(), answer.into_response()));
            }
            // It says for which partitions: a map or a pipeline that it doesn't know is not found either.
            Ok(answer)
                if answer.status == StatusCode::NOT_FOUND
                    && answer.header(PARTITION) == Some(&routing::listed(&numbers)) =>
            {
                self.absent.append(&mut numbers);
                self.refusal = Some(answer.into_response());
            }
            Ok(answer) => {
                let error = match answer.status {
                    StatusCode::SERVICE_UNAVAILABLE => answer.error(),
                    _ => format!(
                        "the instance that holds {} runs another version of this pipeline: {}",
                        routing::named(&numbers),
                        answer.error()
                    ),
                };
                self.unready = Some(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error));
            }
        }
    }

    fn sum_up(mut self, may_stand_in_one: bool) -> Result<Response, Refusal> {
        if may_stand_in_one && let Some((_, found)) = self.found.pop() {
            return Ok(found);
        }
        if let Some(unready) = self.unready {
            return Err(unready);
        }
        if self.found.len() == 1
            && let Some((_, found)) = self.found.pop()
        {
            return Ok(found);
        }
        if !self.found.is_empty() {
            let having = self.found.into_iter().flat_map(|(having, _)| having);
            let mut having: Vec<u32> = having.collect();
            having.sort_unstable();
            return Ok(several(&having).into_response());
        }
        // One said all there is to say; of several each has an offset of its own.
        if let (&[_], Some(refusal)) = (self.absent.as_slice(), self.refusal.take()) {
            return Ok(refusal);
        }
        self.absent.sort_unstable();
        let asked = [(PARTITION, routing::listed(&self.absent))];
        Ok((asked, absent()).into_response())
    }
}

/// Each of these partitions has a value of its own.
fn several(partitions: &[u32]) -> impl IntoResponse + use<> {
    let listed = routing::listed(partitions);
    let error = format!(
        "the key has a value in each of the partitions {listed}: ask for one of them with ?partition=N. A keyed stream before the step \
         gives one value a key"
    );
    let refusal = Refusal::new(StatusCode::CONFLICT, error);
    ([(PARTITION, listed)], refusal)
}

fn absent() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "the map has no such key")
}

/// The partitions that a key may stand in: the one that it hashes to; of a step's state, all; of a replicated map, which is here in whole,
/// one that holds it, or all where none does: one that is being restored may have it.
fn places_of(served: &Served, map: MapId, key: &[u8]) -> Vec<u32> {
    let partitions = served.partitions_of[map.0];
    if served.pipeline.maps[map.0].kept == Kept::State {
        return (0..partitions).collect();
    }
    let likely = changelog::partition(key, partitions);
    if !served.pipeline.maps[map.0].replicated {
        return vec![likely];
    }
    let holds = |number: &u32| {
        served
            .directory
            .answering((map, *number))
            .is_some_and(|shared| {
                let partition = shared.read().expect("nobody panics with it held");
                partition.contents().get(key).is_some()
            })
    };
    let mut all = std::iter::once(likely).chain(0..partitions);
    all.find(holds)
        .map_or_else(|| (0..partitions).collect(), |number| vec![number])
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::http::HeaderValue;

    use super::*;

    fn answer(status: StatusCode, partition: Option<&'static str>) -> Result<Answer, Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(partition) = partition {
            headers.insert(PARTITION, HeaderValue::from_static(partition));
        }
        Ok(Answer {
            status,
            headers,
            body: Bytes::from_static(b"{\"error\":\"why\"}"),
        })
    }

    #[track_caller]
    fn check(answers: Vec<(Vec<u32>, Result<Answer, Refusal>)>, expected: u16) {
        let mut said = Said::default();
        for (numbers, answer) in answers {
            said.hear(numbers, answer);
        }
        let response = said.sum_up(true).into_response();
        assert_eq!(response.status(), expected);
    }

    #[test]
    fn no_value_is_picked_from_several() {
        type Answers = Vec<(Vec<u32>, Result<Answer, Refusal>)>;
        let check = |answers: Answers, expected: u16, partitions: Option<&str>| {
            let mut said = Said::default();
            for (numbers, answer) in answers {
                said.hear(numbers, answer);
            }
            let response = said.sum_up(false).into_response();
            let named = response.headers().get(PARTITION);
            let named = named.map(|named| named.to_str().unwrap());
            assert_eq!((response.status().as_u16(), named), (expected, partitions));
        };
        let found = |partitions| answer(StatusCode::OK, Some(partitions));
        let absent = |partitions| answer(StatusCode::NOT_FOUND, Some(partitions));
        let both = || answer(StatusCode::CONFLICT, Some("0,3"));
        let restoring = || (vec![2], answer(StatusCode::SERVICE_UNAVAILABLE, None));
        check(
            vec![(vec![0, 3], absent("0,3")), (vec![1], found("1"))],
            200,
            Some("1"),
        );
        check(
            vec![(vec![0], found("0")), (vec![1], found("1"))],
            409,
            Some("0,1"),
        );
        check(vec![(vec![0, 3], both())], 409, Some("0,3"));
        check(
            vec![(vec![0, 3], both()), (vec![1], found("1"))],
            409,
            Some("0,1,3"),
        );
        check(
            vec![(vec![0, 3], absent("0,3")), (vec![1], absent("1"))],
            404,
            Some("0,1,3"),
        );
        check(vec![(vec![0], found("0")), restoring()], 503, None);
    }

    #[test]
    fn absent_is_what_every_partition_says() {
        const NONE: StatusCode = StatusCode::NOT_FOUND;
        let found = || (vec![2], answer(StatusCode::OK, Some("2")));
        let restoring = || (vec![1], answer(StatusCode::SERVICE_UNAVAILABLE, None));
        check(vec![(vec![0], answer(NONE, Some("0")))], 404);
        check(vec![(vec![0, 3], answer(NONE, Some("0,3")))], 404);
        // No word of the partition that was asked for: it may not even be one of ours.
        check(vec![(vec![0], answer(NONE, None))], 503);
        check(vec![(vec![0, 3], answer(NONE, Some("0")))], 503);
        check(vec![(vec![0], answer(NONE, Some("0"))), restoring()], 503);
        check(vec![restoring(), (vec![0], answer(NONE, Some("0")))], 503);
        check(vec![restoring(), found()], 200);
        check(vec![(vec![0], answer(NONE, Some("0"))), found()], 200);
        check(vec![(vec![1], answer(StatusCode::BAD_REQUEST, None))], 503);
        let gone = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "gone");
        check(vec![(vec![1], Err(gone))], 503);
    }
}
