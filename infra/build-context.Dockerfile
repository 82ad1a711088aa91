# Makes an image of one folder of the build context, by whose name another Dockerfile copies from it.
FROM scratch
ARG FOLDER
COPY ${FOLDER} /
