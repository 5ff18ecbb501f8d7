//! Changes are sent only while whoever wants them may still make them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::Error;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Permission = Arc<dyn Fn() -> bool + Send + Sync>;

tokio::task_local! {
    static PERMISSION: Permission;
}

/// Does some work whose changes are refused once `permission` does not hold any more: that is asked right before each is sent, after all
/// waiting for a turn, a session, a version or a connection, and again with each piece of a long one.
pub async fn changing_while<F: Future>(permission: Permission, work: F) -> F::Output {
    PERMISSION.scope(permission, work).await
}

/// Does some work that changes nothing on the machine, as a login.
pub(crate) async fn changing_nothing<F: Future>(work: F) -> F::Output {
    PERMISSION.scope(Arc::new(|| true), work).await
}

/// Refuses a change that may not be sent now, and breaks off one that may not while it is sent: a BMC acts on no request that is cut short.
pub(crate) fn guard(request: &mut reqwest::Request) -> crate::Result<()> {
    let Ok(permission) = PERMISSION.try_with(Arc::clone) else {
        return Ok(());
    };
    if !permission() {
        return Err(Error::NotPermitted);
    }
    if let Some(body) = request.body_mut().take() {
        *request.body_mut() = Some(reqwest::Body::wrap(Guarded { body, permission }));
    }
    Ok(())
}

/// A body that is sent only while that is permitted. HTTP/1.1 asks for it once there is a connection.
struct Guarded {
    body: reqwest::Body,
    permission: Permission,
}

impl Body for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if !(this.permission)() {
            return Poll::Ready(Some(Err(Error::NotPermitted.into())));
        }
        Pin::new(&mut this.body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;
    use crate::{Client, Limits, Target, Trust};

    /// Uploads a file whose permission is withdrawn once it was asked for so often; tells how that ended, and what arrived.
    async fn upload(permitted: usize) -> (crate::Result<crate::Reply>, usize) {
        const PART: usize = 64 << 10;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bmc = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut arrived = vec![];
            // Cut off, it may end in an error; what arrived before counts.
            let _ = stream.read_to_end(&mut arrived).await;
            arrived.len()
        });
        let target = Target {
            scheme: "http".to_owned(),
            name: None,
            address: address.ip(),
            port: address.port(),
        };
        crate::install_crypto();
        let client = Client::new(&target, &Trust::Any, None, Limits::default()).unwrap();
        let parts = futures_util::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![0; PART])));
        let file = reqwest::Body::wrap_stream(parts);
        let asked = AtomicUsize::new(0);
        let permission = Arc::new(move || asked.fetch_add(1, Ordering::Relaxed) < permitted);
        let outcome = changing_while(permission, client.post_file("/image", file, 100 * PART as u64)).await;
        (outcome, bmc.await.unwrap() / PART)
    }

    #[tokio::test]
    async fn a_change_is_broken_off_when_it_may_not_be_made_any_more() {
        // Withdrawn while it connected: nothing of it arrives.
        let (outcome, parts) = upload(1).await;
        assert!(matches!(outcome, Err(Error::NotPermitted)), "{outcome:?}");
        assert_eq!(parts, 0);
        // Withdrawn while it is sent: the rest does not arrive.
        let (outcome, parts) = upload(20).await;
        assert!(matches!(outcome, Err(Error::NotPermitted)), "{outcome:?}");
        assert!(parts < 20, "{parts}");
    }
}
