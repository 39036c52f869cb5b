// Shows the API with Swagger UI, whose calls use the key of this tab if the page at /ui/ has one.

const STORED = "llamagate.key";

const docs = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  filter: true,
  tryItOutEnabled: true,
  // No other host is asked whether the document is right.
  validatorUrl: null,
  onComplete() {
    const key = sessionStorage.getItem(STORED);
    if (key) docs.preauthorizeApiKey("bearer", key);
  },
});
