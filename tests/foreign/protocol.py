"""Requests, responses and error messages, as DSP0266 describes them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

ROOT = "/redfish/v1"

# Message key -> (text with %n arguments, severity, resolution), after the DMTF Base registry.
MESSAGES = {
    "Success": ("The request completed successfully.", "OK", "None."),
    "Created": ("The resource was created successfully.", "OK", "None."),
    "CreateLimitReachedForResource": (
        "The create operation failed because the resource has reached the limit of possible resources.",
        "Critical",
        "Delete resources and resubmit the request.",
    ),
    "GeneralError": (
        "A general error has occurred. See Resolution for information on how to resolve the error.",
        "Critical",
        "See vendor specific instructions for specific actions.",
    ),
    "AccessDenied": (
        "While attempting to establish a connection to '%1', the service was denied access.",
        "Critical",
        "Attempt to ensure that the URI is correct and that the service has the appropriate credentials.",
    ),
    "AccountModified": ("The account was successfully modified.", "OK", "No resolution is required."),
    "ActionNotSupported": (
        "The action %1 is not supported by the resource.",
        "Critical",
        "The action supplied cannot be resubmitted to the implementation.",
    ),
    "ActionParameterMissing": (
        "The action %1 requires the parameter %2 to be present in the request body.",
        "Critical",
        "Supply the action with the required parameter in the request body.",
    ),
    "ActionParameterUnknown": (
        "The action %1 was submitted with the invalid parameter %2.",
        "Warning",
        "Correct the invalid parameter and resubmit the request.",
    ),
    "ActionParameterNotSupported": (
        "The parameter %1 for the action %2 is not supported on the target resource.",
        "Warning",
        "Remove the parameter supplied and resubmit the request.",
    ),
    "ActionParameterValueNotInList": (
        "The value '%1' for the parameter %2 in the action %3 is not in the list of acceptable values.",
        "Warning",
        "Choose a value from the enumeration list.",
    ),
    "ActionParameterValueConflict": (
        "The parameter '%1' with the requested value '%2' does not meet the current state of the resource.",
        "Warning",
        "Correct the parameter value and resubmit the request.",
    ),
    "CreateFailedMissingReqProperties": (
        "The create operation failed because the required property %1 was missing from the request.",
        "Critical",
        "Correct the body to include the required property.",
    ),
    "HeaderInvalid": ("Header '%1' is invalid.", "Critical", "Resubmit the request with a valid request header."),
    "InsufficientPrivilege": (
        "There are insufficient privileges for the account or credentials associated with the current session to perform the requested operation.",
        "Critical",
        "Either abandon the operation or change the associated access rights.",
    ),
    "InternalError": (
        "The request failed due to an internal service error.  The service is still operational.",
        "Critical",
        "Resubmit the request.  If the problem persists, consider resetting the service.",
    ),
    "MalformedJSON": (
        "The request body submitted was malformed JSON and could not be parsed by the receiving service.",
        "Critical",
        "Ensure that the request body is valid JSON and resubmit the request.",
    ),
    "MissingOrMalformedPart": (
        "The multipart request contains malformed parts or missing required parts.",
        "Critical",
        "Ensure all required parts are present and well-formed.",
    ),
    "NoOperation": (
        "The request body submitted contain no data to act upon and no changes to the resource took place.",
        "Warning",
        "Add properties in the JSON object and resubmit the request.",
    ),
    "NoValidSession": (
        "There is no valid session established with the implementation.",
        "Critical",
        "Establish a session before attempting any operations.",
    ),
    "OperationNotAllowed": ("The HTTP method is not allowed on this resource.", "Critical", "None."),
    "OperationFailed": (
        "An error occurred internal to the service as part of the overall request.",
        "Warning",
        "Resubmit the request.",
    ),
    "PasswordChangeRequired": (
        "The password provided for this account must be changed before access is granted.  PATCH the Password property for this account located at the target URI '%1' to complete this process.",
        "Critical",
        "Change the password for this account.",
    ),
    "PreconditionFailed": (
        "The ETag supplied did not match the ETag required to change this resource.",
        "Critical",
        "Try the operation again using the appropriate ETag.",
    ),
    "PreconditionRequired": (
        "A precondition header or annotation is required to change this resource.",
        "Critical",
        "Try the operation again using an If-Match or If-None-Match header.",
    ),
    "PropertyMissing": (
        "The property %1 is a required property and must be included in the request.",
        "Warning",
        "Ensure that the property is in the request body.",
    ),
    "PropertyNotWritable": (
        "The property %1 is a read-only property and cannot be assigned a value.",
        "Warning",
        "Remove the property from the request body.",
    ),
    "PropertyUnknown": (
        "The property %1 is not in the list of valid properties for the resource.",
        "Warning",
        "Remove the unknown property from the request body.",
    ),
    "PropertyValueFormatError": (
        "The value '%1' for the property %2 is not a format that the property can accept.",
        "Warning",
        "Correct the value for the property.",
    ),
    "PropertyValueIncorrect": (
        "The property '%1' with the requested value of '%2' could not be written because the value does not meet the constraints of the implementation.",
        "Warning",
        "No resolution is required.",
    ),
    "PropertyValueNotInList": (
        "The value '%1' for the property %2 is not in the list of acceptable values.",
        "Warning",
        "Choose a value from the enumeration list.",
    ),
    "PropertyValueOutOfRange": (
        "The value '%1' for the property %2 is not in the supported range of acceptable values.",
        "Warning",
        "Correct the value for the property.",
    ),
    "PropertyValueTypeError": (
        "The value '%1' for the property %2 is not a type that the property can accept.",
        "Warning",
        "Correct the value for the property.",
    ),
    "QueryNotSupported": (
        "Querying is not supported by the implementation.",
        "Warning",
        "Remove the query parameters and resubmit the request.",
    ),
    "QueryNotSupportedOnResource": (
        "Querying is not supported on the requested resource.",
        "Warning",
        "Remove the query parameters and resubmit the request.",
    ),
    "QueryParameterValueFormatError": (
        "The value '%1' for the parameter %2 is not a format that the parameter can accept.",
        "Warning",
        "Correct the value for the query parameter.",
    ),
    "ResourceAlreadyExists": (
        "The requested resource of type %1 with the property %2 with the value '%3' already exists.",
        "Critical",
        "Do not repeat the create operation as the resource was already created.",
    ),
    "ResourceCannotBeDeleted": (
        "The delete request failed because the resource requested cannot be deleted.",
        "Critical",
        "Do not attempt to delete a non-deletable resource.",
    ),
    "ResourceInStandby": (
        "The request could not be performed because the resource is in standby.",
        "Critical",
        "Ensure that the resource is in the correct power state.",
    ),
    "ResourceInUse": (
        "The change to the requested resource failed because the resource is in use or in transition.",
        "Warning",
        "Remove the condition and resubmit the request.",
    ),
    "ResourceMissingAtURI": (
        "The resource at the URI '%1' was not found.",
        "Critical",
        "Place a valid resource at the URI or correct the URI.",
    ),
    "ServiceInUnknownState": (
        "The operation failed because the service is in an unknown state and can no longer take incoming requests.",
        "Critical",
        "Restart the service and resubmit the request.",
    ),
    "ServiceTemporarilyUnavailable": (
        "The service is temporarily unavailable.  Retry in %1 seconds.",
        "Critical",
        "Wait for the indicated retry duration and retry the operation.",
    ),
    "SessionLimitExceeded": (
        "The session establishment failed due to the number of simultaneous sessions exceeding the limit of the implementation.",
        "Critical",
        "Reduce the number of other sessions before trying to establish the session.",
    ),
    "StringValueTooShort": (
        "The string '%1' was not long enough, the minimum length is %2.",
        "Warning",
        "Resubmit with a longer string.",
    ),
    "StringValueTooLong": (
        "The string '%1' exceeds the length limit %2.",
        "Warning",
        "Resubmit with a shorter string.",
    ),
    "UnsupportedMediaType": (
        "The request failed because the media type is not supported.",
        "Critical",
        "Correct the media type.",
    ),
}


@dataclass
class Part:
    """One part of a multipart form."""

    name: str
    filename: str | None
    content: bytes

    def describe(self) -> dict:
        """What the log keeps of it: never the content of an image, but the text of small parameters."""
        text = self.content.decode("utf-8", "replace") if self.filename is None and len(self.content) < 4096 else None
        return {"name": self.name, "filename": self.filename, "size": len(self.content), "text": text}


@dataclass
class Request:
    """One HTTP request together with what the service found out about its sender."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    parts: list[Part] = field(default_factory=list)
    record: dict | None = None
    peer: str = "127.0.0.1"
    scheme: str = "http"
    account: str | None = None
    session: str | None = None

    def json(self) -> dict:
        """The body as an object; an empty body counts as an empty object."""
        if not self.body.strip():
            return {}
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise Refusal(400, "MalformedJSON") from error
        if not isinstance(value, dict):
            raise Refusal(400, "MalformedJSON")
        return value

    def basic_credentials(self) -> tuple[str, str] | None:
        """User and password of an Authorization header, or None."""
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            user, _, password = base64.b64decode(value).decode("utf-8").partition(":")
        except ValueError:
            return "", ""
        return user, password


@dataclass
class Response:
    """An answer; a dict or list body is sent as JSON."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """The bytes of the body."""
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body, indent=1).encode()


class Refusal(Exception):
    """A request that the service refuses, with the message of the registry that says why."""

    def __init__(
        self,
        status: int,
        key: str,
        *args: Any,
        headers: dict | None = None,
        related: list[str] | None = None,
        oem: tuple[str, str] | None = None,
    ):
        super().__init__(f"{status} {key}")
        self.status, self.key, self.args_, self.headers = status, key, [str(arg) for arg in args], headers or {}
        self.related, self.oem = related or [], oem


def message(
    key: str, *args: str, registry: str = "Base.1.16", related: list[str] | None = None, full: bool = True
) -> dict:
    """One Message object; without `full` only the id and arguments, as some vendors send it."""
    text, severity, resolution = MESSAGES.get(key, (key, "Warning", "None."))
    prefix = "" if "." in key else f"{registry}."
    if not full:
        return {"MessageId": prefix + key, "MessageArgs": list(args)}
    for number, arg in enumerate(args, start=1):
        text = text.replace(f"%{number}", arg)
    result = {
        "@odata.type": "#Message.v1_1_1.Message",
        "MessageId": prefix + key,
        "Message": text,
        "MessageArgs": list(args),
        "MessageSeverity": severity,
        "Severity": severity,
        "Resolution": resolution,
    }
    if related:
        result["RelatedProperties"] = related
    return result


def error_body(style: dict, refusal: Refusal) -> dict:
    """The error object of a refusal in the personality's style of writing errors."""
    registry = style.get("registry", "Base.1.16")
    own = message(refusal.key, *refusal.args_, registry=registry, related=refusal.related, full=not style.get("short"))
    extended = [own]
    if refusal.oem:
        key, text = refusal.oem
        extended.insert(
            0,
            {
                "MessageId": key,
                "Message": text,
                "MessageArgs": [],
                "Severity": "Warning",
                "RelatedProperties": [],
                "Resolution": "Wait and retry the operation.",
            },
        )
    return {
        "error": {
            "code": style.get("code") or extended[0]["MessageId"],
            "message": style.get("text") or extended[0].get("Message", ""),
            "@Message.ExtendedInfo": extended[0] if style.get("single") and len(extended) == 1 else extended,
        }
    }
