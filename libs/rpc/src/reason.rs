//! Every reason that an ErrorInfo may carry.

use crate::Kind;

macro_rules! reasons {
    ($($variant:ident = $text:literal, $kind:ident, $doc:literal;)*) => {
        /// Why a call failed, for programs. `docs/errors.md` is written from this list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $(#[doc = $doc] $variant,)* }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As it stands in ErrorInfo.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The canonical code that it comes with.
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// What it means and what to do.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

reasons! {
    InvalidField = "INVALID_FIELD", Invalid, "A field of the request is wrong; BadRequest names it. Correct it and call again.";
    RequestIdReused = "REQUEST_ID_REUSED", Exists, "The request id was used for another request. Take a fresh one.";
    ResumeTokenExpired = "RESUME_TOKEN_EXPIRED", OutOfRange, "Changes before the resume token were forgotten. Watch again without one.";
    PermissionDenied = "PERMISSION_DENIED", Denied, "The caller's identity may not call this method. See the authorisation table.";
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated, "The caller showed no identity. Connect with a client certificate.";
    Internal = "INTERNAL", Internal, "A defect or a broken database; the service's log has the chain under the request id.";
    StaleFence = "STALE_FENCE", Aborted, "The lease under which this was asked for is over, or has passed on to another process, which was heard from. Let that one go on.";
    DeadlineExceeded = "DEADLINE_EXCEEDED", Deadline, "The call was not done by its deadline; the message says what it waited for. A change that was begun goes on: look before you repeat it.";
    PeerUnavailable = "PEER_UNAVAILABLE", Unavailable, "Another service that is needed did not answer. Try again.";
    ServerNotFound = "SERVER_NOT_FOUND", NotFound, "No server has this name.";
    ServerExists = "SERVER_EXISTS", Exists, "A server of this name exists.";
    ServerChanged = "SERVER_CHANGED", Aborted, "The server changed since it was read. Read it again, then decide.";
    DuplicateSystemUuid = "DUPLICATE_SYSTEM_UUID", Exists, "Another server has this system UUID. One machine is one server.";
    ServerInUse = "SERVER_IN_USE", Precondition, "A claim or a maintenance holds the server. End that first.";
    TransitionRefused = "TRANSITION_REFUSED", Precondition, "The lifecycle has no such arrow from this state; the message names the open ones.";
    SanitizationOwed = "SANITIZATION_OWED", Precondition, "The server owes a wipe. Let the cleanup pass, or waive it by name.";
    NothingOwed = "NOTHING_OWED", Precondition, "The server owes no wipe.";
    NoServerMatches = "NO_SERVER_MATCHES", Precondition, "No server can serve the claim now. Explain the claim to see why.";
    ServerNotAvailable = "SERVER_NOT_AVAILABLE", Precondition, "The server that the claim names cannot serve it now.";
    BmcNotFound = "BMC_NOT_FOUND", NotFound, "No BMC has this name.";
    BmcExists = "BMC_EXISTS", Exists, "A BMC of this name exists.";
    BmcChanged = "BMC_CHANGED", Aborted, "The BMC changed since it was read. Read it again, then decide.";
    AddressRefused = "ADDRESS_REFUSED", Invalid, "The address lies outside the ranges that the gateway may reach, or may reach without encryption.";
    CredentialShared = "CREDENTIAL_SHARED", Precondition, "Several BMCs use the credential. Give this one a credential of its own first.";
    CredentialRotating = "CREDENTIAL_ROTATING", Precondition, "A rotation of the credential has not ended. Wait for it, or set replace to forget its password.";
    CredentialRotated = "CREDENTIAL_ROTATED", Precondition, "A rotation has set the password: the BMC has it and nobody else knows it. Say replace (or force, to delete) to forget it.";
    SealingKeyMissing = "SEALING_KEY_MISSING", Precondition, "A record is sealed under a key that the gateway does not have. List the file of that key in gateway.old_key_files.";
    CredentialInUse = "CREDENTIAL_IN_USE", Precondition, "BMCs use the credential. Give them another one first, or force it with a reason.";
    BmcInUse = "BMC_IN_USE", Precondition, "Servers depend on the BMC. Delete them first, or force it with a reason.";
    ConsoleBusy = "CONSOLE_BUSY", Precondition, "Somebody else writes to the console. Attach to read, or wait until they leave.";
    ConsoleHostKeyRefused = "CONSOLE_HOST_KEY_REFUSED", Precondition, "The console's host key is not the pinned one. Check it, then set console_host_key.";
    CredentialNotFound = "CREDENTIAL_NOT_FOUND", NotFound, "No credential has this name.";
    BmcUnreachable = "BMC_UNREACHABLE", Unavailable, "The BMC does not answer. RetryInfo tells when it is tried again.";
    BmcBusy = "BMC_BUSY", Unavailable, "The BMC, or the queue in front of it, is busy. Try again.";
    BmcAuthenticationFailed = "BMC_AUTHENTICATION_FAILED", Precondition, "The BMC refused the credential. Set the right one; the refused one is tried again after ten minutes, then after ever longer, up to an hour.";
    BmcPasswordChangeRequired = "BMC_PASSWORD_CHANGE_REQUIRED", Precondition, "The BMC lets the account do nothing but change its password. Rotate the credential.";
    BmcForbidden = "BMC_FORBIDDEN", Precondition, "The BMC's account lacks the privilege. Use a credential with the administrator role.";
    BmcLicenseRequired = "BMC_LICENSE_REQUIRED", Precondition, "The BMC wants a licence for this; the message carries its words.";
    BmcInvalidValue = "BMC_INVALID_VALUE", Invalid, "The BMC does not take a value; the message names it.";
    BmcAmbiguous = "BMC_AMBIGUOUS", Unknown, "The BMC did not answer a change: it may or may not have taken effect. Read the state before you repeat it.";
    BmcTlsRefused = "BMC_TLS_REFUSED", Precondition, "The BMC's certificate is not the trusted one. Check it, then change the pin.";
    BmcNotReady = "BMC_NOT_READY", Precondition, "The BMC has no address or no credential yet.";
    BmcUnsupported = "BMC_UNSUPPORTED", Precondition, "The BMC does not offer this.";
    BmcRefused = "BMC_REFUSED", Precondition, "The BMC refused the change; the message carries its reason.";
    BmcProtocol = "BMC_PROTOCOL", Internal, "The BMC answered nonsense; the message says where.";
    BmcTimeout = "BMC_TIMEOUT", Deadline, "The hardware did not reach the wanted state in time.";
    SystemNotFound = "SYSTEM_NOT_FOUND", NotFound, "The BMC has no such system.";
    SystemAmbiguous = "SYSTEM_AMBIGUOUS", Invalid, "The BMC has several systems; name one.";
    DriveNotFound = "DRIVE_NOT_FOUND", NotFound, "The system has no drive of this serial number.";
    DrivesUnreadable = "DRIVES_UNREADABLE", Precondition, "The BMC does not show all of its drives.";
    OperationNotFound = "OPERATION_NOT_FOUND", NotFound, "No operation has this name.";
    OperationCancelled = "OPERATION_CANCELLED", Cancelled, "Somebody asked the operation to stop.";
    ImageGone = "IMAGE_GONE", Precondition, "The pushed image is with another gateway, which had the BMC before, or gone. Push it again, or give the gateways one spool.";
    TaskFailed = "TASK_FAILED", Precondition, "The BMC's task failed; the message carries its words.";
    EndpointNotFound = "ENDPOINT_NOT_FOUND", NotFound, "No endpoint has this name.";
    EndpointExists = "ENDPOINT_EXISTS", Exists, "An endpoint of this name exists.";
    EndpointChanged = "ENDPOINT_CHANGED", Aborted, "The endpoint changed since it was read. Read it again, then decide.";
    AgentRunNotFound = "AGENT_RUN_NOT_FOUND", NotFound, "No run of the agent has this name.";
    AgentRunEnded = "AGENT_RUN_ENDED", Precondition, "The run of the agent is over.";
    AgentBusy = "AGENT_BUSY", Precondition, "Another run of the agent holds the machine.";
    AgentTokenRefused = "AGENT_TOKEN_REFUSED", Unauthenticated, "The token is unknown, or its run is over.";
    WrongMachine = "WRONG_MACHINE", Precondition, "What was seen (by the agent, or by the BMC) is another machine than the one of the record. Check the cabling and the BMC's address.";
    ClaimNotFound = "CLAIM_NOT_FOUND", NotFound, "No claim has this name.";
    ClaimExists = "CLAIM_EXISTS", Exists, "A claim of this name exists.";
    ClaimChanged = "CLAIM_CHANGED", Aborted, "The claim changed since it was read. Read it again, then decide.";
    CertificateNotFound = "CERTIFICATE_NOT_FOUND", NotFound, "No certificate has this name.";
    MaintenanceNotFound = "MAINTENANCE_NOT_FOUND", NotFound, "No maintenance has this name.";
    MaintenanceExists = "MAINTENANCE_EXISTS", Exists, "A maintenance of this name exists.";
    MaintenanceChanged = "MAINTENANCE_CHANGED", Aborted, "The maintenance changed since it was read. Read it again, then decide.";
}
