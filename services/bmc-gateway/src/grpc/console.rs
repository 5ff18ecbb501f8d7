use std::pin::Pin;

use futures_util::Stream;
use ironyard_proto::bmc::{self as pb, attach_request::Part, console_service_server::ConsoleService};
use ironyard_rpc::{Fault, Reason};
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, target};
use crate::device::{Attached, ConsoleError, Consoles};

/// The service on the wire.
pub struct Grpc {
    /// What all share.
    pub shared: Shared,
    /// Consoles that are open.
    pub consoles: Consoles,
}

impl From<ConsoleError> for Fault {
    fn from(error: ConsoleError) -> Self {
        let message = error.to_string();
        let reason = match error {
            ConsoleError::Unreachable(_) | ConsoleError::NoPrompt(_) => Reason::BmcUnreachable,
            ConsoleError::HostKey(_) => Reason::ConsoleHostKeyRefused,
            ConsoleError::Refused => Reason::BmcAuthenticationFailed,
            ConsoleError::Busy => Reason::ConsoleBusy,
            ConsoleError::Moved => Reason::PeerUnavailable,
        };
        Self::new(reason, message)
    }
}

async fn over(ended: &mut tokio::sync::watch::Receiver<Option<ConsoleError>>) {
    let _ = ended.wait_for(Option::is_some).await;
}

/// Sends what is shown until the console ends or the caller goes.
async fn show(attached: &mut Attached, to: &tokio::sync::mpsc::Sender<Result<pb::AttachResponse, Status>>) -> Result<(), Fault> {
    let history = std::mem::take(&mut attached.history);
    if !history.is_empty() && to.send(Ok(pb::AttachResponse { data: history })).await.is_err() {
        return Ok(());
    }
    loop {
        tokio::select! {
            data = attached.output.recv() => match data {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    if to.send(Ok(pb::AttachResponse { data })).await.is_err() {
                        return Ok(());
                    }
                }
                // Slower than the console: what was missed is in its log.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            },
            () = over(&mut attached.ended) => break,
            () = to.closed() => return Ok(()),
        }
    }
    // What came just before the end.
    while let Ok(data) = attached.output.try_recv() {
        if !data.is_empty() {
            let _ = to.send(Ok(pb::AttachResponse { data })).await;
        }
    }
    let why = attached.ended.borrow().clone();
    Err(why.unwrap_or_else(|| ConsoleError::Unreachable("it was closed".to_owned())).into())
}

#[tonic::async_trait]
impl ConsoleService for Grpc {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<pb::AttachResponse, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<pb::AttachRequest>>) -> Result<Response<Self::AttachStream>, Status> {
        let mut typed = request.into_inner();
        let Some(Part::Head(pb::AttachHead { system, read_only })) = typed.message().await?.and_then(|m| m.part) else {
            return Err(Fault::field("part", "the first message says to which console").into());
        };
        let target = target(system)?;
        if !target.expected.is_unknown() {
            // What is typed goes to the machine that is meant.
            let device = self.shared.devices.get(&target.bmc).await?;
            device.machine(&target.system_id, &target.expected).await.map_err(Fault::from)?;
        }
        let place = self.shared.devices.console(&target.bmc).await?;
        let pinned = !place.host_key.is_empty();
        let (mut attached, seen) = self.consoles.attach(&target.label(), place, read_only).await.map_err(Fault::from)?;
        if let Some(key) = seen.filter(|_| !pinned) {
            self.shared.devices.pin_console(&target.bmc, &key).await?;
        }
        let (to, out) = tokio::sync::mpsc::channel(64);
        let writer = attached.writer.take();
        tokio::spawn(async move {
            let writing = async {
                let Some(mut writer) = writer else { return };
                while let Ok(Some(message)) = typed.message().await {
                    if let Some(Part::Data(data)) = message.part {
                        writer.write(&data).await;
                    }
                }
            };
            // Who has typed all may still want to see the rest.
            let writing = async {
                writing.await;
                std::future::pending().await
            };
            let outcome = tokio::select! {
                outcome = show(&mut attached, &to) => outcome,
                outcome = writing => outcome,
            };
            if let Err(fault) = outcome {
                let _ = to.send(Err(fault.into())).await;
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(out))))
    }

    async fn get_console_log(&self, request: Request<pb::GetConsoleLogRequest>) -> Result<Response<pb::GetConsoleLogResponse>, Status> {
        let target = target(request.into_inner().system)?;
        self.shared.devices.get(&target.bmc).await?;
        let (data, attached) = self.consoles.log(&target.label()).await;
        Ok(Response::new(pb::GetConsoleLogResponse { data, attached }))
    }
}
