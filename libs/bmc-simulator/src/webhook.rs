use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
};

/// Posts an event to a subscriber over HTTP, once; what comes back is nobody's business.
pub(crate) fn post(destination: &str, event: &Value) {
    let Some((host, path)) = destination.strip_prefix("http://").and_then(|rest| rest.split_once('/')) else {
        return;
    };
    let body = event.to_string();
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let host = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let send = async move {
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut vec![]).await
    };
    // A machine that is made before anything runs has nobody to tell.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), send).await;
        });
    }
}
