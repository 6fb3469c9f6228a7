//! A host made of answers written down beforehand, for tests of the engine.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use super::transport::{Remote, RemoteError, RemoteFuture};
use crate::base::wire::{TaskReply, TaskRequest};

/// What a scripted host does with the next task.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Answers with this object.
    Result(Value),
    /// Is lost while the task runs.
    Lost,
    /// Cannot be connected.
    Refused,
    /// Never answers.
    Silent,
}

/// A [`Remote`] that answers by module name, in order, and remembers what it was asked.
#[derive(Debug, Default)]
pub struct ScriptedRemote {
    script: Mutex<Vec<(String, VecDeque<Answer>)>>,
    asked: Mutex<Vec<(TaskRequest, Vec<u8>)>>,
}

impl ScriptedRemote {
    /// Answers the next call of a module so; the last answer is given again and again.
    #[must_use]
    pub fn on(self, module: &str, answer: Answer) -> Self {
        {
            let mut script = lock(&self.script);
            match script.iter_mut().find(|(name, _)| name == module) {
                Some((_, answers)) => answers.push_back(answer),
                None => script.push((module.to_owned(), VecDeque::from([answer]))),
            }
        }
        self
    }

    /// Everything the host was asked so far, with the bodies.
    pub fn asked(&self) -> Vec<(TaskRequest, Vec<u8>)> {
        lock(&self.asked).clone()
    }

    fn answer(&self, module: &str) -> Answer {
        let mut script = lock(&self.script);
        let answers = script.iter_mut().find(|(name, _)| name == module);
        match answers {
            None => Answer::Result(Value::Object(Map::from_iter([(
                "changed".to_owned(),
                Value::Bool(false),
            )]))),
            Some((_, answers)) if answers.len() > 1 => {
                answers.pop_front().expect("more than one is left")
            }
            Some((_, answers)) => answers[0].clone(),
        }
    }
}

impl Remote for ScriptedRemote {
    fn run(&self, request: TaskRequest, body: Vec<u8>) -> RemoteFuture<'_> {
        let answer = self.answer(&request.module);
        let id = request.id;
        lock(&self.asked).push((request, body));
        Box::pin(async move {
            let host = "scripted".to_owned();
            match answer {
                Answer::Result(Value::Object(result)) => Ok(TaskReply { id, result }),
                Answer::Result(other) => panic!("a result is an object, not {other}"),
                Answer::Lost => Err(RemoteError::Lost {
                    host,
                    reason: "the connection dropped".to_owned(),
                }),
                Answer::Refused => Err(RemoteError::Connect {
                    host,
                    reason: "connection refused".to_owned(),
                }),
                Answer::Silent => std::future::pending().await,
            }
        })
    }

    fn reset(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
