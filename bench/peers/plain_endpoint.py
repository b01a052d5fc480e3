"""A FastAPI endpoint as tutorials write it: the model called once a request, in FastAPI's thread pool. Nothing of fenlei is imported.

python plain_endpoint.py MODEL PORT
"""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

app = FastAPI()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()


class Request(BaseModel):
    """One text."""

    text: str


@app.get("/health")
def health():
    """For whoever waits until the model is loaded."""
    return {}


@app.post("/classify")
def classify(request: Request):
    """The label and its probability."""
    inputs = tokenizer(request.text, truncation=True, max_length=1024, return_tensors="pt")
    with torch.inference_mode():
        probabilities = model(**inputs).logits.float().softmax(-1)[0]
    best = int(probabilities.argmax())
    return {"label": model.config.id2label[best], "score": float(probabilities[best])}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
