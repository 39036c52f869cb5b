// Shows the API with Redoc, to read and to print. Its search would run in a worker that the policy of this page forbids.

const options = {disableSearch: true, hideDownloadButton: false, nativeScrollbars: true, sortRequiredPropsFirst: true};

Redoc.init("openapi.json", options, document.getElementById("redoc"));
